"""A process that waits in vain says which it is, at which step and with which samples."""

from __future__ import annotations

import signal
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.strategies import DDPStrategy

from tests.tiny_run import tiny_run
from tests.torchrun import begun, kill_one
from vlsafe.data.collate import Batch
from vlsafe.strategies.waiting import StepWatch


def trainer(world: int = 4, seconds: float = 0.1) -> Any:
    strategy = DDPStrategy(timeout=timedelta(seconds=seconds))
    return SimpleNamespace(world_size=world, global_rank=3, global_step=7, strategy=strategy)


def batch(samples: int) -> Batch:
    rows = torch.zeros(samples, 1)
    return Batch({}, rows, rows, ["x"] * samples, [f"r{number}" for number in range(samples)])


def waited(watch: StepWatch, watched: Any, samples: int, seconds: float) -> None:
    watch.on_train_start(watched, None)  # type: ignore[arg-type]
    watch.on_train_batch_start(watched, None, batch(samples), 0)  # type: ignore[arg-type]
    time.sleep(seconds)


def test_a_long_step_is_told_once_with_its_process_and_samples(capfd: pytest.CaptureFixture[str]) -> None:
    watch = StepWatch()
    waited(watch, trainer(), 9, 0.4)
    watch.on_train_end()
    said = capfd.readouterr().err
    assert said.count("process 3 of 4, optimizer step 7, samples r0, r1, r2, r3, r4, r5, r6, r7 and 1 more: begun") == 1


def test_an_error_in_a_step_names_the_process_and_its_samples(capfd: pytest.CaptureFixture[str]) -> None:
    watch = StepWatch()
    waited(watch, trainer(seconds=60), 1, 0)
    watch.on_exception(trainer(), None, RuntimeError("closed"))  # type: ignore[arg-type]
    assert capfd.readouterr().err == "process 3 of 4, optimizer step 7, samples r0: ended by RuntimeError\n"


@pytest.mark.parametrize("world", [1, 4])
def test_what_ends_in_time_or_runs_alone_says_nothing(world: int, capfd: pytest.CaptureFixture[str]) -> None:
    watch = StepWatch()
    waited(watch, trainer(world), 1, 0.0 if world > 1 else 0.3)
    watch.on_validation_start()
    time.sleep(0.3)
    watch.on_train_end()
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_a_process_that_stands_still_is_found_by_what_the_other_says(tmp_path: Path) -> None:
    config = tiny_run(tmp_path)
    content: dict[str, Any] = yaml.safe_load(config.read_text())
    fsdp2 = {"class_path": "vlsafe.strategies.fsdp2.FSDP2", "init_args": {"compute": "float32", "timeout": 0.5}}
    content["trainer"] |= {"devices": 2, "strategy": fsdp2, "max_epochs": 6, "limit_val_batches": 0}
    content["checkpoints"] = {"every": 1, "keep": 1}
    content["evaluation"]["benchmarks"] = []
    config.write_text(yaml.safe_dump(content))
    running = begun(2, ["fit", "--config", str(config)], tmp_path)
    kept = tmp_path / "run" / "checkpoints"
    kill_one(running, lambda: (kept / "step=2.ckpt").exists(), signal.SIGSTOP)
    words, _ = running.communicate(timeout=900)
    assert running.returncode != 0
    assert "process 0 of 2, optimizer step " in words and "at 30 s (the strategy's timeout)" in words, words
