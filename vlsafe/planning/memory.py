"""Bytes per GPU for each way to share a run out, and the least sharding that fits (docs/planning.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vlsafe.errors import ConfigError
from vlsafe.planning.shape import Sizes
from vlsafe.planning.trace import Traced

Strategy = Literal["single", "ddp", "hsdp", "fsdp2"]
Checkpointing = Literal["off", "full"]

GIB = 2**30
USABLE = 0.9
"""Share of a GPU's memory that a plan may fill. The rest is for the CUDA context, the work space of cuBLAS and NCCL,
and what the allocator cannot hand out because it is in pieces."""


@dataclass(frozen=True)
class Machine:
    """``gpus`` in all, ``per_node`` of them in one node, each with ``memory`` bytes and ``tflops`` (dense, in the
    precision of the products), of which a run is expected to reach the share ``mfu``. ``link`` and ``network``: GB/s
    that each of them sends to others of its node, and to other nodes."""

    gpus: int
    per_node: int
    memory: int
    tflops: float
    mfu: float
    link: float = 450
    network: float = 50

    def __post_init__(self) -> None:
        problems = [
            f"--{name} is {value:g}, must be above 0"
            for name in ("gpus", "memory", "tflops", "link", "network")
            if (value := getattr(self, name)) <= 0
        ]
        if not 0 < self.mfu <= 1:
            problems.append(f"--mfu is {self.mfu:g}, must be above 0 and at most 1 (0.45 is 45 % of the peak)")
        if self.gpus > self.per_node > 0 and self.gpus % self.per_node:
            problems.append(f"--gpus {self.gpus} is no multiple of --gpus-per-node {self.per_node}")
        if self.per_node < 1:
            problems.append(f"--gpus-per-node is {self.per_node}, must be at least 1")
        if problems:
            raise ConfigError(problems)

    @property
    def nodes(self) -> int:
        return -(-self.gpus // self.per_node)


@dataclass(frozen=True)
class Needs:
    """Bytes per GPU at the heaviest micro-batch. ``work``: logits, and what lives only for a moment of the backward
    pass; ``gathered``: copies that a strategy keeps beside a GPU's own share; ``answers``: keys and values, activations
    and logits of an evaluation in the run, which come in the place of activations and work of training."""

    strategy: Strategy
    checkpointing: Checkpointing
    weights: int
    gradients: int
    optimizer: int
    activations: int
    work: int
    gathered: int
    answers: int

    @property
    def total(self) -> int:
        held = self.weights + self.gradients + self.optimizer + self.gathered
        return held + max(self.activations + self.work, self.answers)

    def fits(self, machine: Machine) -> bool:
        return self.total <= USABLE * machine.memory


def strategies(machine: Machine) -> list[Strategy]:
    """Those that make sense on the machine, the least sharding first."""
    if machine.gpus == 1:
        return ["single"]
    return ["ddp", "hsdp", "fsdp2"] if machine.nodes > 1 else ["ddp", "fsdp2"]


def needs(
    strategy: Strategy,
    checkpointing: Checkpointing,
    sizes: Sizes,
    traced: Traced,
    machine: Machine,
    accumulates: bool,
    answers: int = 0,
) -> Needs:
    """What one GPU holds.

    Args:
        traced: the heaviest micro-batch; under a sharding strategy as traced for it (:class:`Shape`).
        answers: at most while a batch of prompts is answered, traced in the same way.
        accumulates: whether gradients of earlier micro-batches are there while activations are at their most.
    """
    shards = shards_of(strategy, machine)
    gathered = sizes.gradients if strategy == "ddp" else 0
    peak = traced.peak
    if shards > 1:
        # the layer at work and the one fetched ahead of it, whole, and the layer's gradients until they are shared out
        gathered = sizes.root + 2 * sizes.block + sizes.block_gradients
    elif not accumulates:
        peak = max(traced.with_gradients - sizes.gradients, 0)
    return Needs(
        strategy,
        checkpointing,
        weights=_share(sizes.weights, shards),
        gradients=_share(sizes.gradients, shards),
        optimizer=_share(sizes.adamw, shards),
        activations=min(traced.activations, peak),
        work=max(peak - traced.activations, 0),
        gathered=gathered,
        answers=answers,
    )


def shards_of(strategy: Strategy, machine: Machine) -> int:
    """GPUs that share one copy."""
    return {"single": 1, "ddp": 1, "hsdp": min(machine.per_node, machine.gpus), "fsdp2": machine.gpus}[strategy]


def _share(size: int, shards: int) -> int:
    return -(-size // shards)


def least(rows: Sequence[Needs], machine: Machine) -> tuple[Needs | None, str]:
    """The least sharding that fits, without checkpointing where it fits so too; and why. ``rows`` in that order."""
    limit = USABLE * machine.memory
    for place, row in enumerate(rows):
        if not row.fits(machine):
            continue
        passed = [f"{_named(other)} would need {gib(other.total)} of {gib(limit)}" for other in rows[:place]]
        why = "; ".join(passed) if passed else f"it needs {gib(row.total)} of {gib(limit)}, and nothing need be shared"
        return row, f"{_named(row)}: {why}"
    smallest = min(rows, key=lambda row: row.total)
    return None, (
        f"nothing fits: {_named(smallest)} is the smallest and needs {gib(smallest.total)} of {gib(limit)} a GPU; take "
        "more GPUs, a smaller data.batch_size, or adapters (train: lora)"
    )


def _named(row: Needs) -> str:
    return row.strategy if row.checkpointing == "off" else f"{row.strategy} with checkpointing"


def gib(size: float) -> str:
    return f"{size / GIB:.3g} GiB" if size < GIB else f"{size / GIB:.1f} GiB"
