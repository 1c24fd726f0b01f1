"""What GPUs send each other in an optimizer step, and how long that takes at least."""

from __future__ import annotations

from dataclasses import dataclass

from vlsafe.planning.memory import Machine, Strategy, shards_of
from vlsafe.planning.shape import Sizes


@dataclass(frozen=True)
class Traffic:
    """Bytes that one GPU sends in an optimizer step, to others of its node (``within``) and to other nodes
    (``between``)."""

    within: int
    between: int

    def seconds(self, machine: Machine) -> float:
        """At the bandwidths of the machine; both ways are used one after the other."""
        return self.within / (machine.link * 1e9) + self.between / (machine.network * 1e9)


def traffic(strategy: Strategy, sizes: Sizes, machine: Machine, accumulate: int) -> Traffic:
    """Ring collectives over ``n`` GPUs: of ``B`` bytes an all-gather or a reduce-scatter sends ``B (n - 1) / n`` from
    each, an all-reduce twice that (Patarasuk and Yuan 2009, doi 10.1016/j.jpdc.2008.09.002).

    ``ddp`` reduces gradients once a step. Sharding gathers the weights of every block forward and backward, those in no
    block once, and shares out float32 gradients, in each of ``accumulate`` micro-batches; ``hsdp`` does so within
    nodes, and reduces each GPU's share of the gradients between nodes once a step. A ring over several nodes is as slow
    as its slowest link.
    """
    shards = shards_of(strategy, machine)
    if strategy == "hsdp":
        inside = _sharded(sizes, shards, accumulate)
        return Traffic(inside, round(2 * _part(machine.nodes) * sizes.gradients / shards))
    sent = _sharded(sizes, shards, accumulate) if shards > 1 else round(2 * _part(machine.gpus) * sizes.gradients)
    return Traffic(0, sent) if machine.nodes > 1 else Traffic(sent, 0)


def _sharded(sizes: Sizes, shards: int, accumulate: int) -> int:
    return round(accumulate * _part(shards) * (2 * sizes.whole - sizes.root + sizes.gradients))


def _part(members: int) -> float:
    return (members - 1) / members
