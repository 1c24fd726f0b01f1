"""Costs in the headers of two recipes are what ``plan`` says of them, on files in LLaVA-1.5-7B's shape."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from shapes import llava_7b

from tests.recipes import BASE, ROOT, header
from vlsafe.planning.command import main as plan
from vlsafe.planning.memory import GIB


def planned(recipe: Path, folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    files = f"--model.init_args.backbone.init_args.checkpoint={llava_7b(folder)}"
    options = ["--tokens", "790", "--samples", "7000", "--json", *more]
    assert plan(["--config", str(BASE), "--config", str(recipe), files, *options]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def gib(found: dict[str, Any], strategy: str) -> list[int]:
    """Kept, and recomputed."""
    return [round(row["total"] / GIB) for row in found["memory"] if row["strategy"] == strategy]


@pytest.mark.slow
def test_adapters_on_one_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = ROOT / "experiments/llava15_7b_posthoc_lora.yaml"
    told = " ".join(header(recipe))
    assert "at 790 tokens a sample" in told and "165 steps" in told
    memory = re.search(r"needs (\d+) GiB and ([\d.]+) hours, or (\d+) GiB and ([\d.]+) hours with", told)
    assert memory is not None
    found = planned(recipe, tmp_path, capsys)
    assert gib(found, "single") == [int(memory[1]), int(memory[3])]
    assert found["step"]["steps"] == 165 and found["chosen"]["checkpointing"] == "full"
    hours = found["step"]["hours"]
    assert (round(hours / found["checkpointing_slower"], 2), round(hours, 2)) == (float(memory[2]), float(memory[4]))


@pytest.mark.slow
def test_all_weights_on_eight(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = ROOT / "experiments/llava15_7b_posthoc_full.yaml"
    told = " ".join(header(recipe))
    memory = re.search(r"eight with fsdp2 (\d+) GiB each \((\d+) without checkpointing\)", told)
    assert memory is not None
    found = planned(recipe, tmp_path, capsys, "--gpus", "8")
    assert gib(found, "fsdp2") == [int(memory[2]), int(memory[1])]
    assert f"{found['disk']['checkpoint'] / 1e9:.0f} GB a checkpoint" in told
