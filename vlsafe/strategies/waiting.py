"""Which process, step and samples it was, where processes wait for each other in vain."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import lightning as L
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

from vlsafe.data.collate import Batch

_EARLY = 0.9
_SHOWN = 8


class StepWatch(L.Callback):
    """Says on standard error where a process stands, shortly before the others are given up, and when a step fails.

    NCCL ends a process whose collective takes longer than the strategy's ``timeout`` without any error in Python, so
    a thread tells it when nine tenths of that time have gone by since a step began, its callbacks and checkpoint
    included. One process alone is not watched.
    """

    def __init__(self) -> None:
        self._began = 0.0
        self._where = ""
        self._over = threading.Event()
        self._over.set()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        strategy = trainer.strategy
        if trainer.world_size == 1 or not isinstance(strategy, DDPStrategy | ModelParallelStrategy):
            return
        limit = strategy._timeout
        if limit is not None:
            self._over.clear()
            threading.Thread(target=self._watch, args=(limit.total_seconds(),), daemon=True).start()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        more = f" and {len(batch.ids) - _SHOWN} more" if len(batch.ids) > _SHOWN else ""
        samples = ", ".join(batch.ids[:_SHOWN]) + more
        self._began = time.monotonic()
        self._where = (
            f"process {trainer.global_rank} of {trainer.world_size}, optimizer step {trainer.global_step}, "
            f"samples {samples}"
        )

    def on_validation_start(self, *_: Any) -> None:
        self._where = ""  # may take as long as it likes: nobody waits while all are at it

    def on_train_end(self, *_: Any) -> None:
        self._over.set()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._over.set()
        if self._where and trainer.world_size > 1:
            _say(f"{self._where}: ended by {type(exception).__name__}")

    def _watch(self, limit: float) -> None:
        told = ""
        while not self._over.wait(limit / 50):
            where, passed = self._where, time.monotonic() - self._began
            if where and where != told and passed > _EARLY * limit:
                told = where
                _say(
                    f"{where}: begun {passed:.0f} s ago, and at {limit:.0f} s (the strategy's timeout) the "
                    "processes give each other up. One that says nothing here has stopped or waits outside of a step; "
                    "one that is slow by its samples names them"
                )


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
