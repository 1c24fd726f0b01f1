"""``trainer.strategy: auto``: the least sharding that fits on the machine at hand, by the plan's estimate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.accelerators import CUDAAccelerator
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from vlsafe.data.datamodule import ConversationData
from vlsafe.errors import ConfigError
from vlsafe.models.module import SafetyFineTuning
from vlsafe.planning.memory import Machine, Needs, least
from vlsafe.planning.requested import planned_run
from vlsafe.planning.workload import Answers
from vlsafe.strategies.fsdp2 import FSDP2


def chosen_strategy(
    model: SafetyFineTuning,
    data: ConversationData,
    asked: Any,
    machine: Machine | None,
    answers: Answers | None = None,
) -> FSDP2 | str:
    """What to give Lightning's Trainer; says on standard error what it took and why.

    The estimate depends on config, data and the GPUs' memory alone, so that every process of a run takes the same.

    Args:
        asked: the ``trainer`` section of the config.
        machine: :func:`machine_here`. One GPU, and CPUs, need no choice: Lightning's own ``auto`` is a single device,
            or ``ddp`` for several CPU processes.
        answers: of the evaluations before and after.
    """
    if machine is None or machine.gpus == 1:
        return "auto"
    if model.components.quantises:
        rank_zero_only(_say)("trainer.strategy auto: ddp, the only one for 4-bit weights (train: qlora)")
        return "ddp"
    try:
        plan = planned_run(model, data, asked, machine.gpus, machine, answers)
    except ConfigError as error:  # a backbone that cannot be built without weights
        rank_zero_only(_say)(f"trainer.strategy auto: ddp, for there is no estimate: {error}")
        return "ddp"
    row, why = least_of(plan.rows, recomputes(model), machine)
    rank_zero_only(_say)(f"trainer.strategy auto: {why}")
    if row.strategy == "ddp":
        return "ddp"
    return FSDP2(replicas="nodes" if row.strategy == "hsdp" else 1)


def least_of(rows: Sequence[Needs], recomputing: bool, machine: Machine) -> tuple[Needs, str]:
    """Of a plan's ``rows``, the first that fits with the run's own checkpointing; without one the smallest, for the
    plan is an estimate and the run may fit all the same. And why, in words."""
    own = [row for row in rows if (row.checkpointing == "full") == recomputing]
    chosen, why = least(own, machine)
    if chosen is not None:
        return chosen, why
    smallest = min(own, key=lambda row: row.total)
    more = "" if recomputing else "; model.activation_checkpointing: true needs less"
    return smallest, f"{why}{more}. {smallest.strategy} is tried all the same"


def recomputes(model: SafetyFineTuning) -> bool:
    """Whether every block of the language model is recomputed; fewer count as none, so that rather more is reckoned."""
    every = model.activation_checkpointing
    return every if isinstance(every, bool) else every.get("language") == 1


def machine_here(asked: Any) -> Machine | None:
    """The GPUs that a ``trainer`` section means on this machine, times its nodes; None where it runs on CPUs."""
    if asked.accelerator not in ("auto", "gpu", "cuda") or not CUDAAccelerator.is_available():
        return None
    everything = asked.devices in ("auto", -1, "-1")
    found = list(range(torch.cuda.device_count())) if everything else CUDAAccelerator.parse_devices(asked.devices)
    memory = min(torch.cuda.get_device_properties(index).total_memory for index in found or [])
    return Machine(len(found or []) * asked.num_nodes, len(found or []), memory, tflops=1, mfu=1)


def _say(words: str) -> None:
    Console(stderr=True).print(words, highlight=False, markup=False)
