"""SafetyProbe: attack success and over-refusal on a few fixed items, while the model trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L

from vlsafe.answering import Decoding
from vlsafe.errors import ConfigError
from vlsafe.evaluation.benchmarks.base import Benchmark
from vlsafe.evaluation.folder import read_folder
from vlsafe.evaluation.judges import judge_named
from vlsafe.evaluation.records import Metric
from vlsafe.evaluation.scoring import benchmark_classes, check_sides, directions, score
from vlsafe.evaluation.stages import evaluate
from vlsafe.models.module import SafetyFineTuning
from vlsafe.models.responder import ModelResponder
from vlsafe.studies.objective import logged, objective_of_metrics


class SafetyProbe(L.Callback):
    """Evaluates before the first and after every ``every_n_steps``-th optimizer step, and logs
    ``probe/<benchmark>[variant]/<metric>`` and the ``objective`` of these few items, which a sweep's early stop reads.

    The objective's retention is against the probe at step 0. The records of each probe are kept in
    ``<run directory>/evaluation/probe/step-<n>/``, so what the model answered on the way can be read later. The items
    are few, so read the curve and not its single points.

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
        self._start: dict[str, Metric] | None = None
        self._directions: dict[str, dict[str, str]] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        check_sides([item for benchmark in self.benchmarks for item in benchmark.items()])

    def on_train_start(self, trainer: L.Trainer, pl_module: SafetyFineTuning) -> None:
        if not trainer.is_global_zero:
            return
        if trainer.global_step == 0:
            with pl_module.before_tuning():
                self._probe(trainer, pl_module, 0)
        else:
            self._start = self._kept(self._folder(trainer, 0))

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
        metrics = evaluate(self.benchmarks, responder, self.judge, self.decoding, self._folder(trainer, step))
        if step == 0:
            self._start = metrics
        values = {f"probe/{name}": metric.value for name, metric in metrics.items()}
        values |= logged(objective_of_metrics(self._start, metrics, self._ways(metrics)))
        for logger in trainer.loggers:
            logger.log_metrics(values, step=step)

    def _folder(self, trainer: L.Trainer, step: int) -> Path:
        return Path(trainer.default_root_dir) / "evaluation" / "probe" / f"step-{step:06d}"

    def _kept(self, folder: Path) -> dict[str, Metric] | None:
        """The first probe of a run that is resumed; None where the callback is new to it."""
        if not (folder / "metrics.json").is_file():
            return None
        kept = read_folder(folder, self.judge.name)
        return score(kept.items, kept.responses, kept.verdicts, kept.benchmarks)

    def _ways(self, metrics: dict[str, Metric]) -> dict[str, dict[str, str]]:
        if not self._directions:
            items = [item for benchmark in self.benchmarks for item in benchmark.items()]
            self._directions = directions(items, list(metrics), benchmark_classes(self.benchmarks))
        return self._directions
