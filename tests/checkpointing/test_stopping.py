"""A cluster's signal lets the step finish, saves, and ends with a status of its own; one process that is told is
enough."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from vlsafe.__main__ import main
from vlsafe.models.module import SafetyFineTuning
from vlsafe.stopping import Interrupted, Preempted, StopSignals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_preempted_run_saves_and_is_gone_on_with(
    number: int,
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    step = SafetyFineTuning.training_step

    def told(self: SafetyFineTuning, batch: object, batch_idx: int) -> object:
        if batch_idx == 1:
            os.kill(os.getpid(), number)
        return step(self, batch, batch_idx)  # type: ignore[arg-type]

    monkeypatch.setattr(SafetyFineTuning, "training_step", told)
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    argv = ["fit", "--config", str(config), "--resume=auto", "--evaluation.benchmarks=[]"]
    assert main(argv) == 143
    assert "stopped at step 2. Go on with:" in capsys.readouterr().err
    kept = tmp_path / "run" / "checkpoints"
    assert torch.load(kept / "interrupted.ckpt", weights_only=True)["global_step"] == 2
    assert {each: signal.getsignal(each) for each in before} == before
    monkeypatch.undo()
    assert main(argv) == 0
    assert torch.load(kept / "last.ckpt", weights_only=True)["global_step"] == 4


def test_one_process_that_is_told_is_enough() -> None:
    signals = StopSignals()
    trainer = Mock(world_size=2)
    trainer.strategy.reduce_boolean_decision.return_value = False
    assert not signals.agreed(trainer)
    trainer.strategy.reduce_boolean_decision.return_value = True  # the other one was
    assert signals.agreed(trainer)
    assert type(signals.error("")) is Preempted
    signals.received = signal.SIGINT
    assert type(signals.error("")) is Interrupted
