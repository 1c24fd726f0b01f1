"""The equality that ``train_peers.py`` rests on: the same losses as the peers, step by step. Never a time."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy
import pytest
import torch
from accelerate.state import AcceleratorState
from peer_sides import hugging_face, trl, vlsafe
from peer_work import InDouble, build
from result import write
from train_peers import EXACT, TOLERANCE, difference

from vlsafe.__main__ import main

STEPS = 5


@pytest.fixture(autouse=True)
def _leave_no_trace() -> Iterator[None]:
    """Trainers seed every generator, keep process-wide state and set variables; other tests shall not see it."""
    python, array = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng(devices=[]), patch.dict(os.environ):
        yield
    AcceleratorState._reset_state(reset_partial_state=True)
    random.setstate(python)
    numpy.random.set_state(array)


@pytest.mark.parametrize("trainable", ["lora", "full"])
def test_in_float64_the_losses_are_the_same_but_for_its_last_digits(trainable, tmp_path: Path) -> None:
    with InDouble():
        ours = vlsafe(build("tiny", trainable, STEPS, tmp_path, torch.float64)).losses
        theirs = hugging_face(build("tiny", trainable, STEPS, tmp_path, torch.float64)).losses
    assert len(ours) == STEPS
    assert difference(ours, theirs) <= EXACT["vlsafe"]


@pytest.mark.parametrize("trainable", ["lora", "full"])
def test_vlsafe_trains_with_the_losses_of_transformers_trainer(trainable, tmp_path: Path) -> None:
    ours = vlsafe(build("tiny", trainable, STEPS, tmp_path)).losses
    theirs = hugging_face(build("tiny", trainable, STEPS, tmp_path)).losses
    assert len(ours) == STEPS
    assert difference(ours, theirs) <= TOLERANCE
    assert len({round(loss, 3) for loss in ours}) > 1  # it is no constant that agrees


def test_a_step_that_differs_shows_in_the_losses(tmp_path: Path) -> None:
    changed = build("tiny", "lora", STEPS, tmp_path)
    changed.module.betas = (0.5, 0.999)
    ours = vlsafe(build("tiny", "lora", STEPS, tmp_path)).losses
    assert difference(vlsafe(changed).losses, ours) > TOLERANCE


@pytest.mark.slow  # importing TRL takes seconds
def test_vlsafe_trains_with_the_losses_of_trl(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    ours = vlsafe(build("tiny", "lora", STEPS, tmp_path)).losses
    assert difference(ours, trl(build("tiny", "lora", STEPS, tmp_path)).losses) <= TOLERANCE


def test_unequal_losses_are_told() -> None:
    assert difference([1.0, 2.0], [1.0, 2.5]) == 0.5
    assert difference([1.0, float("nan")], [1.0, 2.0]) == float("inf")
    assert difference([1.0], [1.0, 2.0]) == difference([], []) == float("inf")


def test_results_are_compared_over_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new, old, other = (tmp_path / f"{name}.json" for name in ("new", "old", "other"))
    work = {"model": "tiny"}
    for path, speed in ((old, 2.0), (new, 3.0)):
        write(path, "train_peers", work, {"vlsafe, samples/s": speed})
        told = json.loads(path.read_text())
        path.write_text(json.dumps(told | {"created": f"2026-0{speed:.0f}-01T00:00:00", "git": None}))
    assert main(["compare", str(new), str(old), "--out", str(tmp_path / "table.md")]) == 0
    table = """| train_peers | old.json, 2026-02-01, no commit | new.json, 2026-03-01, no commit | last / first |
|---|---|---|---|
| vlsafe, samples/s | 2 | 3 | x1.50 |
"""
    assert capsys.readouterr().out == (tmp_path / "table.md").read_text() == table
    write(other, "train_peers", {"model": "30m"}, {})
    assert main(["compare", str(new), str(other)]) == 1
    assert "other.json measured other work" in capsys.readouterr().err
    other.write_text("{}")
    assert main(["compare", str(new), str(other)]) == 1
    assert "other.json: not the result of a benchmark" in capsys.readouterr().err
