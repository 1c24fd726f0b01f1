"""A run's plan: memory for every strategy, time, steps and disk, put together from its parts."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from vlsafe.models.schedule import limited, optimizer_steps
from vlsafe.planning.memory import Checkpointing, Machine, Needs, least, needs, strategies
from vlsafe.planning.shape import Shape, Sizes
from vlsafe.planning.traffic import Traffic, traffic
from vlsafe.planning.workload import Workload


@dataclass(frozen=True)
class Run:
    """What the Trainer of the config says. ``global_batch``: samples of one optimizer step."""

    precision: str
    global_batch: int
    max_epochs: int | None
    max_steps: int
    limit: int | float


@dataclass(frozen=True)
class Pace:
    """``flops``, ``tokens`` (padding included) and ``supervised`` of one optimizer step on all GPUs together; ``steps``
    of an epoch and of the whole run; ``seconds`` of a step."""

    accumulate: int
    tokens: int
    supervised: int
    flops: int
    seconds: float
    steps_per_epoch: int
    steps: int

    @property
    def hours_per_epoch(self) -> float:
        return self.steps_per_epoch * self.seconds / 3600

    @property
    def hours(self) -> float:
        return self.steps * self.seconds / 3600


@dataclass(frozen=True)
class Estimate:
    """``rows``: the least sharding first. ``slower``: seconds of a step with full checkpointing, over those without.
    ``disk``: bytes of one resumable checkpoint, and of the exported model."""

    machine: Machine
    sizes: Sizes
    workload: Workload
    pace: Pace
    rows: list[Needs]
    chosen: Needs | None
    why: str
    slower: float
    disk: dict[str, int]
    notes: list[str]

    @property
    def chosen_pace(self) -> Pace:
        """As fast as the chosen row is: what is computed again costs time too, and what is sent where it takes longer
        than all that is computed meanwhile."""
        if self.chosen is None:
            return self.pace
        computing = self.pace.seconds * (self.slower if self.chosen.checkpointing == "full" else 1)
        return replace(self.pace, seconds=max(computing, self.sent(self.chosen).seconds(self.machine)))

    def sent(self, row: Needs) -> Traffic:
        """By each GPU in an optimizer step."""
        return traffic(row.strategy, self.sizes, self.machine, self.pace.accumulate)

    def as_json(self) -> dict[str, Any]:
        pace = self.chosen_pace
        return {
            "machine": asdict(self.machine),
            "components": self.sizes.rows,
            "parameters": self.sizes.parameters,
            "trainable": self.sizes.trainable,
            "lengths": {
                "known": self.workload.known,
                "mean_tokens": self.workload.mean_length,
                "longest_tokens": max(self.workload.tokens),
            },
            "memory": [asdict(row) | {"total": row.total, "fits": row.fits(self.machine)} for row in self.rows],
            "sent": {row.strategy: asdict(self.sent(row)) for row in self.rows},
            "chosen": None if self.chosen is None else asdict(self.chosen) | {"total": self.chosen.total},
            "why": self.why,
            "step": asdict(pace) | {"hours_per_epoch": pace.hours_per_epoch, "hours": pace.hours},
            "checkpointing_slower": self.slower,
            "disk": self.disk,
            "notes": self.notes,
        }


def estimated(shape: Shape, sharded: Shape, workload: Workload, run: Run, machine: Machine) -> Estimate:
    """Trace the run's steps and reckon the rest.

    ``sharded``: the shape under a strategy that shards; the same one where nothing differs.
    """
    heavy = workload.heaviest()
    offs = {each: each.traced(workload, heavy, checkpointing=False) for each in (shape, sharded)}
    typical = shape.traced(workload, workload.typical(), checkpointing=False)
    fulls = {each: each.traced(workload, heavy, checkpointing=True) for each in (shape, sharded)}
    traces: dict[Checkpointing, Any] = {"off": offs, "full": fulls}
    answers = {each: each.answered(workload) for each in (shape, sharded)}
    accumulate, note = _accumulate(run, workload.rows, machine.gpus)
    rows = [
        needs(
            strategy,
            checkpointing,
            shape.sizes,
            traces[checkpointing][sharded if strategy in ("fsdp2", "hsdp") else shape],
            machine,
            accumulate > 1,
            answers[sharded if strategy in ("fsdp2", "hsdp") else shape],
        )
        for strategy in strategies(machine)
        for checkpointing in traces
    ]
    chosen, why = least(rows, machine)
    notes = [note] if note else []
    if not typical.sees:
        notes.append(
            "the shapes of this vision encoder depend on a picture's values, so its memory and FLOPs are left out"
        )
    load = workload.typical()
    copies = accumulate * machine.gpus
    steps_per_epoch, steps = _steps(run, workload, accumulate, machine.gpus)
    pace = Pace(
        accumulate,
        tokens=load.rows * load.length * copies,
        supervised=load.supervised * copies,
        flops=typical.flops * copies,
        seconds=typical.flops * accumulate / (machine.tflops * 1e12 * machine.mfu),
        steps_per_epoch=steps_per_epoch,
        steps=steps,
    )
    sizes = shape.sizes
    disk = {"checkpoint": sizes.trainable_weights + sizes.adamw, "export": sizes.exported}
    slower = fulls[shape].flops / offs[shape].flops
    return Estimate(machine, sizes, workload, pace, rows, chosen, why, slower, disk, notes)


def _accumulate(run: Run, rows: int, gpus: int) -> tuple[int, str]:
    """Micro-batches of a step that keep the config's global batch; a note where that cannot be."""
    accumulate = max(1, round(run.global_batch / (rows * gpus)))
    reached = accumulate * rows * gpus
    if reached == run.global_batch:
        return accumulate, ""
    return accumulate, (
        f"the config's global batch is {run.global_batch}; {gpus} GPUs of data.batch_size {rows} make {reached}: "
        "choose a batch_size that divides it"
    )


def _steps(run: Run, workload: Workload, accumulate: int, gpus: int) -> tuple[int, int]:
    batches = limited(math.ceil(workload.samples / (workload.rows * gpus)), run.limit)
    return math.ceil(batches / accumulate), optimizer_steps(batches, accumulate, run.max_epochs, run.max_steps)
