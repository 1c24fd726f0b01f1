"""SafetyProbe: attack success and over-refusal on a few fixed items, while the model trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L

from vlsafe.answering import Decoding
from vlsafe.errors import ConfigError
from vlsafe.evaluation.benchmarks.base import Benchmark
from vlsafe.evaluation.judges import judge_named
from vlsafe.evaluation.scoring import check_sides
from vlsafe.evaluation.stages import evaluate
from vlsafe.models.module import SafetyFineTuning
from vlsafe.models.responder import ModelResponder


class SafetyProbe(L.Callback):
    """Evaluates every ``every_n_steps`` optimizer steps and logs ``probe/<benchmark>[variant]/<metric>``.

    The records of each probe are kept in ``<run directory>/evaluation/probe/step-<n>/``, so what the model answered
    on the way can be read later. The items are few, so read the curve and not its single points.

    Args:
        benchmarks: what to ask, each with a small ``limit``; harm-side and benign-side items are both needed.
        every_n_steps: optimizer steps between two probes.
        judge: by name, as in ``evaluation.judge``.
        max_new_tokens: a refusal shows in its opening, so few are enough.
        batch_size: prompts answered together.
    """

    def __init__(
        self,
        benchmarks: list[Benchmark],
        every_n_steps: int = 50,
        judge: str = "keyword:vlsafe",
        max_new_tokens: int = 16,
        batch_size: int = 16,
    ) -> None:
        if every_n_steps < 1:
            raise ConfigError(f"SafetyProbe.every_n_steps is {every_n_steps}, must be at least 1")
        self.benchmarks = benchmarks
        self.every_n_steps = every_n_steps
        self.judge = judge_named(judge)
        self.decoding = Decoding(max_new_tokens=max_new_tokens)
        self.batch_size = batch_size
        self._last = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        check_sides([item for benchmark in self.benchmarks for item in benchmark.items()])

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: SafetyFineTuning, *_: Any) -> None:
        step = trainer.global_step
        if step == self._last or step % self.every_n_steps:
            return  # a micro-batch that made no step, or not yet time
        self._last = step
        if trainer.is_global_zero:
            self._probe(trainer, pl_module, step)
        trainer.strategy.barrier()

    def _probe(self, trainer: L.Trainer, module: SafetyFineTuning, step: int) -> None:
        assert module.model is not None
        responder = ModelResponder(module.model, module.backbone, self.batch_size)
        folder = Path(trainer.default_root_dir) / "evaluation" / "probe" / f"step-{step:06d}"
        metrics = evaluate(self.benchmarks, responder, self.judge, self.decoding, folder)
        values = {f"probe/{name}": metric.value for name, metric in metrics.items()}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=step)
