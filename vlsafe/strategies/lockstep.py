"""Processes that answer with one sharded model, each its own prompts, pass by pass together.

A block that lies in pieces is gathered by all processes at once or by none. Yet one process has longer answers than
another, one sees an image in this pass, one has nothing left to ask. So every pass is announced by one exchange, and in
it every process gathers the same blocks in one order: those that its own forward skips, and all of them where it has no
work, are gathered and let go without being run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed
from torch import nn
from torch.distributed.fsdp import FSDPModule

from vlsafe.errors import VlsafeError


class Lockstep:
    """The passes of this process over ``blocks``, in step with those of the others.

    A pass begins with the first block that is run after a later one, whatever calls it: greedy decoding, ``generate``,
    a likelihood. A pass that ends early or by an error is completed before the next one begins.

    Args:
        blocks: in the order in which a forward runs them, those that see before the others.
        seeing: how many of them see; a pass in which no process does leaves them out.
        device: of the exchange.
    """

    def __init__(self, blocks: Sequence[FSDPModule], seeing: int, device: torch.device) -> None:
        self.passes = 0
        """How many the processes made together, the same number in each of them."""
        self.blocks = blocks
        self._seeing = seeing
        self._device = device
        self._next = len(blocks)

    def before(self, place: int, *_: Any) -> None:
        """This process is about to gather the block at ``place``."""
        if place < self._next:
            self._complete()
            self._begin(working=True, sees=place < self._seeing)
        self._gather_up_to(place)
        self.blocks[place].reshard()  # an error in it left it gathered, and it would not be gathered with the others

    def gathered(self, place: int, *_: Any) -> None:
        """It has been."""
        self._next = place + 1

    def finish(self) -> None:
        """Take part in the others' passes until none has work left. Every process calls it; all return together."""
        self._complete()
        while self._begin(working=False, sees=False):
            self._complete()

    def _begin(self, working: bool, sees: bool) -> bool:
        """Announce a pass; whether there is one. Raises VlsafeError where another process has ended."""
        told = torch.tensor([working, sees], dtype=torch.int32, device=self._device)
        try:
            torch.distributed.all_reduce(told, op=torch.distributed.ReduceOp.MAX)
            works, any_sees = told.tolist()
        except RuntimeError as error:
            raise VlsafeError(f"another process of this run has ended or hangs, see what it said: {error}") from error
        if works:
            self.passes += 1
            self._next = 0 if any_sees else self._seeing
        return bool(works)

    def _complete(self) -> None:
        self._gather_up_to(len(self.blocks))

    def _gather_up_to(self, place: int) -> None:
        while self._next < place:
            block = self.blocks[self._next]
            block.reshard()
            block.unshard()
            block.reshard()
            self._next += 1


@contextmanager
def in_step(root: FSDPModule, model: nn.Module, see: Callable[[], Any], device: torch.device) -> Iterator[Lockstep]:
    """Forwards of ``model`` in step with those of the other processes, which all enter and leave together.

    At the end this process takes part until none has work; use :meth:`Lockstep.finish` before anything else waits for
    all processes. Where an error leaves the context, the others are not waited for.

    Args:
        root: the module that was cut last, around ``model``; what no block holds stays gathered meanwhile.
        see: runs everything that sees once, through a method of ``root`` that gathers.
    """
    blocks = [module for module in model.modules() if isinstance(module, FSDPModule)]
    seeing = _run_by(see, blocks)
    lockstep = Lockstep([*seeing, *(block for block in blocks if block not in seeing)], len(seeing), device)
    handles = []
    for place, block in enumerate(lockstep.blocks):
        assert isinstance(block, nn.Module)
        # around the hook that gathers
        handles.append(block.register_forward_pre_hook(partial(lockstep.before, place), prepend=True))
        handles.append(block.register_forward_pre_hook(partial(lockstep.gathered, place)))
    try:
        yield lockstep
        lockstep.finish()
    finally:
        for handle in handles:
            handle.remove()
        root.reset_iter_state()  # lets go of what is gathered, also after an error


def _run_by(work: Callable[[], Any], blocks: Sequence[nn.Module]) -> list[Any]:
    """Those of ``blocks`` that ``work`` runs, in its order."""
    order: list[nn.Module] = []
    handles = [block.register_forward_pre_hook(lambda block, _: order.append(block)) for block in blocks]
    try:
        with torch.no_grad():
            work()
    finally:
        for handle in handles:
            handle.remove()
    return list(dict.fromkeys(order))
