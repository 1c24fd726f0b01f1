"""Parameters whose weights are still in their files: cut without storage, then filled, each process its own rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from vlsafe.strategies.shards import placed, rows_here


class Rows(Protocol):
    """Reads rows ``begin`` to ``end`` of the parameter ``name``: [end - begin, ...]."""

    def __call__(self, name: str, begin: int, end: int) -> Tensor: ...


class StandIn(nn.Parameter):
    """A parameter's shape and type before its weights are read: one zero, seen everywhere. It takes no memory."""

    rows: Callable[[int, int | None], Tensor]
    """Reads rows from the first number to the second, None being the last: [end - begin, ...]."""

    def __deepcopy__(self, memo: dict[int, Any]) -> StandIn:  # PEFT copies what trains in full
        return memo.setdefault(id(self), stand_in(self, self.rows))


def stand_in(like: Tensor, rows: Callable[[int, int | None], Tensor]) -> StandIn:
    """A stand-in of the shape, type and need for a gradient of ``like``."""
    zero = torch.zeros((), dtype=like.dtype, device="cpu")
    made = StandIn(zero.expand(like.shape), requires_grad=like.requires_grad)
    made.rows = rows
    return made


def hold_places(model: nn.Module, rows: Callable[..., Tensor]) -> None:
    """Replace every parameter by a stand-in. ``rows``: :class:`Rows` of the model."""
    _replace(model, lambda name, parameter: stand_in(parameter, partial(rows, name)))


def cast(model: nn.Module, dtype: torch.dtype) -> None:
    """As ``model.to(dtype)``, which would give stand-ins the memory of what they stand for."""

    def other(_: str, parameter: nn.Parameter) -> nn.Parameter:
        if not isinstance(parameter, StandIn):
            return parameter
        rows = parameter.rows
        return stand_in(torch.empty_like(parameter, dtype=dtype, device="meta"), lambda *place: rows(*place).to(dtype))

    _replace(model, other)
    model.to(dtype)


def read_now(model: nn.Module, *parts: nn.Module) -> None:
    """Give the stand-ins in ``parts`` of ``model`` their weights."""
    wanted = {parameter for part in parts for parameter in part.parameters()}

    def read(_: str, parameter: nn.Parameter) -> nn.Parameter:
        return nn.Parameter(values(parameter)) if parameter in wanted else parameter

    _replace(model, read)


def values(parameter: nn.Parameter) -> Tensor:
    """All of a parameter, read where it is a stand-in."""
    return parameter.rows(0, None) if isinstance(parameter, StandIn) else parameter


def without_storage(model: nn.Module) -> None:
    """Put stand-ins on the ``meta`` device, where they can be cut; what has weights stays."""

    def empty(_: str, parameter: nn.Parameter) -> nn.Parameter:
        if not isinstance(parameter, StandIn):
            return parameter
        return nn.Parameter(
            torch.empty(parameter.shape, dtype=parameter.dtype, device="meta"), requires_grad=parameter.requires_grad
        )

    _replace(model, empty)


def fill(model: nn.Module, rows: Rows, device: torch.device) -> None:
    """Read what this process holds of every parameter that is cut and without storage, one after the other."""

    def read(name: str, parameter: nn.Parameter) -> nn.Parameter:
        if not (isinstance(parameter, DTensor) and parameter.is_meta):
            return parameter
        mine = rows(name, *rows_here(parameter)).to(device)
        return nn.Parameter(placed(mine, parameter), requires_grad=parameter.requires_grad)

    _replace(model, read)


def _replace(model: nn.Module, change: Callable[[str, nn.Parameter], nn.Parameter]) -> None:
    """``change(name, parameter)`` in the place of each parameter; what is shared stays shared."""
    made: dict[nn.Parameter, nn.Parameter] = {}
    for path, module in model.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter not in made:
                made[parameter] = change(f"{path}.{name}" if path else name, parameter)
            if made[parameter] is not parameter:
                setattr(module, name, made[parameter])
