"""A model in training, measured by all of its processes together, in the precision in which it is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import lightning as L
from peft import PeftModel
from torch.distributed.fsdp import FSDPModule

from vlsafe.answering import Decoding
from vlsafe.evaluation.benchmarks.base import Benchmark
from vlsafe.evaluation.judges.base import Judge
from vlsafe.evaluation.records import Metric
from vlsafe.evaluation.sharing import Processes
from vlsafe.evaluation.stages import evaluate
from vlsafe.models.module import SafetyFineTuning
from vlsafe.models.responder import ModelResponder
from vlsafe.strategies.lockstep import Lockstep, in_step

T = TypeVar("T")


@dataclass(frozen=True)
class InStep(Processes):
    """Processes that share one sharded model: one that has done its share goes on with the passes of the others."""

    lockstep: Lockstep = field(kw_only=True)

    def done(self) -> None:
        self.lockstep.finish()


def measured(
    trainer: L.Trainer,
    module: SafetyFineTuning,
    benchmarks: Sequence[Benchmark],
    judge: Judge,
    decoding: Decoding,
    batch_size: int,
    out: Path,
) -> dict[str, Metric]:
    """All four stages of an evaluation into ``out``, by all processes of ``trainer``; each gets the metrics. What is
    there already is not asked again. Raises as :func:`vlsafe.evaluation.stages.evaluate`."""
    assert module.model is not None
    precision, dtype = trainer.precision_plugin.forward_context, module.sharded.compute if module.sharded else None
    responder = ModelResponder(module.model, module.backbone, batch_size, precision, dtype)
    responder.identity()  # reads every weight, which ends before the processes go pass by pass
    return together(trainer, module, lambda processes: evaluate(benchmarks, responder, judge, decoding, out, processes))


def together(trainer: L.Trainer, module: SafetyFineTuning, work: Callable[[Processes], T]) -> T:
    """``work`` with the processes of ``trainer``, in each of which the module answers: with a copy of the model, or
    where it is sharded, all of them pass by pass."""
    if module.sharded is None:
        return work(Processes(trainer.global_rank, trainer.world_size))
    with stepping(trainer, module) as lockstep:
        processes = InStep(trainer.global_rank, trainer.world_size, lockstep=lockstep)
        return module.gathered(lambda: work(processes))


def stepping(trainer: L.Trainer, module: SafetyFineTuning) -> AbstractContextManager[Lockstep]:
    """Of a sharded module, see :func:`vlsafe.strategies.lockstep.in_step`."""
    assert isinstance(module, FSDPModule) and module.model is not None
    model = module.model.get_base_model() if isinstance(module.model, PeftModel) else module.model

    def see() -> None:
        with trainer.precision_plugin.forward_context():
            module.gathered(lambda: module.backbone.blank_features(model))

    return in_step(module, model, see, trainer.strategy.root_device)
