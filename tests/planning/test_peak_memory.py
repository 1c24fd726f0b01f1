"""The planner against the memory that a process really needs, to train two steps or to answer. Slow: it does so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

MODELS: dict[str, dict[str, int]] = {
    "tiny": dict(hidden_size=192, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4),
    "small": dict(hidden_size=512, intermediate_size=1408, num_hidden_layers=6, num_attention_heads=8),
}


BESIDE = 30e6
"""Bytes that training under bf16-mixed may hold on a CPU beside what is planned and 15 %. Not explained: products in
float32, and answers in bfloat16, hold what is planned."""
CASES = [
    *(
        (size, "32-true", train, what)
        for size in MODELS
        for train in ("full", "lora")
        for what in ("kept", "recomputed")
    ),
    *(("small", "bf16-mixed", train, what) for train in ("full", "lora") for what in ("kept", "recomputed")),
    *(("small", precision, "lora", "answers") for precision in ("32-true", "bf16-mixed")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("size", "precision", "train", "what"), CASES)
def test_within_15_percent_of_a_real_run(
    tmp_path: Path, size: str, precision: str, train: str, what: str, record_property: Callable[[str, object], None]
) -> None:
    """Two steps with activations kept or recomputed, or a batch of answers."""
    request = {"model": MODELS[size], "precision": precision, "train": train, "folder": str(tmp_path)}
    request |= {"checkpointing": what == "recomputed", "answers": what == "answers"}
    # large blocks go back to the system when they are freed, so that what the process holds is what is alive
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("measured_run.py")), json.dumps(request)],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    planned, measured = found["planned"], found["measured"]
    figures = (f"{planned / 1e6:.0f} MB", f"{measured / 1e6:.0f} MB", f"{planned / measured:.2f}")
    record_property("planned against measured", (size, precision, train, what, *figures))
    beside = BESIDE if precision == "bf16-mixed" and what != "answers" else 0
    assert 0.85 * measured - beside <= planned <= 1.15 * measured, found
