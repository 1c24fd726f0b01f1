"""SafetyProbe: attack success and over-refusal on a few fixed items, while the model trains."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import lightning as L

from callbacks.probing import Probe, probe_folder
from vlsafe.answering import Decoding
from vlsafe.evaluation.benchmarks.base import Benchmark
from vlsafe.evaluation.folder import read_folder
from vlsafe.evaluation.judges import judge_named
from vlsafe.evaluation.records import Metric
from vlsafe.evaluation.scoring import benchmark_classes, check_sides, directions, score
from vlsafe.measuring import measured
from vlsafe.models.module import SafetyFineTuning
from vlsafe.studies.objective import logged, objective_of_metrics


class SafetyProbe(Probe):
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
        super().__init__(every_n_steps)
        self.benchmarks = benchmarks
        self.judge = judge_named(judge)
        self.decoding = Decoding(max_new_tokens=max_new_tokens)
        self.batch_size = batch_size
        self._start: dict[str, Metric] | None = None
        self._directions: dict[str, dict[str, str]] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        check_sides([item for benchmark in self.benchmarks for item in benchmark.items()])

    def prepare(self, trainer: L.Trainer, module: SafetyFineTuning) -> None:
        if trainer.global_step > 0:
            self._start = self._kept(_folder(trainer, 0))

    def values(self, trainer: L.Trainer, module: SafetyFineTuning, step: int) -> dict[str, float]:
        with module.before_tuning() if step == 0 else nullcontext():
            metrics = measured(
                trainer, module, self.benchmarks, self.judge, self.decoding, self.batch_size, _folder(trainer, step)
            )
        if step == 0:
            self._start = metrics
        values = {f"probe/{name}": metric.value for name, metric in metrics.items()}
        return values | logged(objective_of_metrics(self._start, metrics, self._ways(metrics)))

    def _kept(self, folder: Path) -> dict[str, Metric] | None:
        """The first probe of a run that is resumed; None where the callback is new to it."""
        if not (folder / "metrics.json").is_file():
            return None
        kept = read_folder(folder, self.judge.name)
        return score(kept.items, kept.responses, kept.verdicts, kept.benchmarks)

    def _ways(self, metrics: dict[str, Metric]) -> dict[str, dict[str, str]]:
        if not self._directions:
            items = [item for benchmark in self.benchmarks for item in benchmark.items()]
            self._directions = directions(items, list(metrics), benchmark_classes(self.benchmarks), self.judge.name)
        return self._directions


def _folder(trainer: L.Trainer, step: int) -> Path:
    return probe_folder(trainer) / f"step-{step:06d}"
