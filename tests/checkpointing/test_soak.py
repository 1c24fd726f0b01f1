"""A run that is killed at a random moment, and gone on with, ends with the weights of one that was not: 20 of 20."""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from fitting import changed, tensors

from tests.checkpointing.conftest import Fit
from vlsafe import checkpointing
from vlsafe.resuming import checkpoint_to_resume

KILLS = 20


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dies_half_written(save_number: int) -> None:
    """Half of a checkpoint's bytes are in its file when the process dies."""
    real, count = torch.save, iter(range(1, 100))

    def save(state: Any, path: Path) -> None:
        if next(count) == save_number:
            memory = io.BytesIO()
            real(state, memory)
            path.write_bytes(memory.getvalue()[: memory.tell() // 2])
            die()
        real(state, path)

    torch.save = save


def dies_before_the_name(save_number: int) -> None:
    """All of it is on the disk, under its temporary name."""
    real, count = os.replace, iter(range(1, 100))

    def replace(old: Path, new: Path) -> None:
        if next(count) == save_number:
            die()
        real(old, new)

    checkpointing.os.replace = replace


def killed(work: Callable[[], Any], before: Callable[[], None], after: float | None) -> bool:
    """Runs ``work`` in a process of its own, and kills it ``after`` so many seconds; whether it died."""

    def run() -> None:
        torch.set_num_threads(1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        before()
        work()
        os._exit(0)

    process = get_context("fork").Process(target=run)
    process.start()
    if after is not None:
        time.sleep(after)
        process.kill()
    process.join(120)
    return process.exitcode == -signal.SIGKILL


def killed_at_some_moment(work: Callable[[], Any], folder: Path, draw: random.Random, seconds: float) -> bool:
    """Kills ``work`` at a random moment of its ``seconds``; where it had ended by then, again, of a shorter time."""
    while not killed(work, lambda: None, draw.uniform(0, seconds)):
        shutil.rmtree(folder)
        seconds *= 0.8
    return True


@pytest.mark.long
def test_twenty_kills_change_nothing(fit: Fit, tmp_path: Path) -> None:
    _, whole = fit(checkpoints=tmp_path / "whole")
    began = time.perf_counter()
    fit(checkpoints=tmp_path / "timed")
    seconds = time.perf_counter() - began
    draw = random.Random(0)
    equal, died, resumed_from = 0, 0, []
    for number in range(KILLS):
        folder = tmp_path / f"run{number}"
        work = partial(fit, checkpoints=folder)
        if number % 2:
            way = (dies_half_written, dies_before_the_name)[number // 2 % 2]
            died += killed(work, partial(way, draw.randint(1, 6)), None)
        else:
            died += killed_at_some_moment(work, folder, draw, seconds)
        found = checkpoint_to_resume(folder)
        resumed_from.append(found.name if found else "the start")
        _, resumed = fit(ckpt_path=found, checkpoints=folder)
        equal += changed(tensors(whole), tensors(resumed)) == set()
    print(f"killed {died} of {KILLS}, equal {equal} of {KILLS}; resumed from {', '.join(resumed_from)}")
    assert equal == died == KILLS
    assert len(set(resumed_from)) > 3
