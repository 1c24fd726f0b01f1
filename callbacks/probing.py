"""What the probes share: when they look, on which process, what they log, and how much of the training they took."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning as L
from rich.console import Console

from vlsafe.errors import ConfigError
from vlsafe.models.module import SafetyFineTuning


class Probe(L.Callback, ABC):
    """Measures before the first and after every ``every_n_steps``-th optimizer step, by all processes together, and
    tells every logger what it found. At the end it says how much of the training time it took.

    ``probes`` counts them, ``seconds`` is what they took, ``training_share`` (0 to 1, known at the end) their part of
    the training.

    A subclass says what is measured (:meth:`values`) and, where it must, what is made ready first (:meth:`prepare`).
    Raises ConfigError for an interval below 1.
    """

    def __init__(self, every_n_steps: int) -> None:
        if every_n_steps < 1:
            raise ConfigError(f"{type(self).__name__}.every_n_steps is {every_n_steps}, must be at least 1")
        self.every_n_steps = every_n_steps
        self.probes = 0
        self.seconds = 0.0
        self.training_share = 0.0
        self._began = 0.0
        self._last = 0

    def prepare(self, trainer: L.Trainer, module: SafetyFineTuning) -> None:
        """Called once on every process when training starts; ``trainer.global_step`` is above 0 where a run goes on."""

    @abstractmethod
    def values(self, trainer: L.Trainer, module: SafetyFineTuning, step: int) -> dict[str, float]:
        """What is logged at ``step``, by name. Called on every process; what the first returns is logged."""

    def on_train_start(self, trainer: L.Trainer, pl_module: SafetyFineTuning) -> None:
        self._began = time.perf_counter()
        with self._timed():
            self.prepare(trainer, pl_module)
        if trainer.global_step == 0:
            self._look(trainer, pl_module, 0)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: SafetyFineTuning, *_: object) -> None:
        step = trainer.global_step
        if step == self._last or step % self.every_n_steps:
            return  # a micro-batch that made no step, or not yet time
        self._last = step
        self._look(trainer, pl_module, step)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.probes and trainer.is_global_zero:
            self.training_share = self.seconds / (time.perf_counter() - self._began)
            spent = f"{self.probes} probes, {self.seconds:.1f} s, {100 * self.training_share:.1f} % of training"
            Console(stderr=True).print(f"{type(self).__name__}: {spent}")

    def _look(self, trainer: L.Trainer, module: SafetyFineTuning, step: int) -> None:
        with self._timed(), trainer.precision_plugin.forward_context():
            found = self.values(trainer, module, step)
            for logger in trainer.loggers if trainer.is_global_zero else []:
                logger.log_metrics(found, step=step)
        self.probes += 1

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began


def probe_folder(trainer: L.Trainer) -> Path:
    """Where probes keep their records: ``evaluation/probe`` of the run directory."""
    return Path(trainer.default_root_dir) / "evaluation" / "probe"
