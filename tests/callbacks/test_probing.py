"""What both probes stand on: when they look, what is logged, what share of the training they took."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import lightning as L
import pytest
from lightning.pytorch.loggers import CSVLogger
from tiny import save_tokenizer

from callbacks import ForgettingProbe, SafetyProbe
from callbacks.probing import Probe
from tests.models.fitting import data, files, module, trainer
from vlsafe.errors import ConfigError
from vlsafe.models.module import SafetyFineTuning


class Sleepy(Probe):
    """Takes its time, and writes down when it was asked."""

    def __init__(self, every_n_steps: int) -> None:
        super().__init__(every_n_steps)
        self.told: list[str] = []

    def prepare(self, trainer: L.Trainer, module: SafetyFineTuning) -> None:
        self.told.append("prepare")

    def values(self, trainer: L.Trainer, module: SafetyFineTuning, step: int) -> dict[str, float]:
        time.sleep(0.1)
        self.told.append(str(step))
        return {"probe/sleep": float(step)}


def test_it_looks_before_the_first_step_and_after_every_nth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two micro-batches make a step; the second of them is the one that is looked after."""
    probe = Sleepy(every_n_steps=2)
    tuned = module(save_tokenizer(tmp_path / "tokenizer"))
    options = dict(max_steps=4, accumulate_grad_batches=2, callbacks=[probe])
    fit = trainer(tmp_path, logger=CSVLogger(tmp_path, name="", version=""), **options)
    fit.fit(tuned, data(files(tmp_path), batch_size=2))
    assert probe.told == ["prepare", "0", "2", "4"]
    with (tmp_path / "metrics.csv").open(newline="") as file:
        logged = [(row["step"], row["probe/sleep"]) for row in csv.DictReader(file) if row.get("probe/sleep")]
    assert logged == [("0", "0.0"), ("2", "2.0"), ("4", "4.0")]
    assert probe.probes == 3 and probe.seconds >= 0.3 and 0 < probe.training_share < 1
    assert "Sleepy: 3 probes" in capsys.readouterr().err


@pytest.mark.parametrize("probe", [ForgettingProbe, SafetyProbe])
def test_an_interval_below_one_is_refused(probe: type[Probe]) -> None:
    with pytest.raises(ConfigError, match=rf"{probe.__name__}.every_n_steps is 0"):
        probe([], every_n_steps=0)  # type: ignore[arg-type]
