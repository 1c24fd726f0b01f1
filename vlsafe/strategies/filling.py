"""Parameters whose weights are still in their files: planned, given a type and cut without storage, then filled."""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from vlsafe.strategies.shards import placed, rows_here


class Rows(Protocol):
    """Reads rows ``begin`` to ``end`` of the parameter ``name``, in its file's type: [end - begin, ...]."""

    def __call__(self, name: str, begin: int, end: int) -> Tensor: ...


class StandIn(nn.Parameter):
    """A parameter's shape and type before its weights are read: one zero, seen everywhere. It takes no memory."""

    rows: Callable[[int, int | None], Tensor]
    """Reads rows from the first number to the second, None being the last, in the file's type: [end - begin, ...]."""

    def read(self, begin: int = 0, end: int | None = None) -> Tensor:
        """Rows ``begin`` to ``end``, in this parameter's type and on its device: [end - begin, ...]. A device gets them
        as they are in the file, which may be half the bytes."""
        return self.rows(begin, end).to(self.device).to(self.dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> StandIn:  # PEFT copies what trains in full
        return memo.setdefault(id(self), stand_in(self, self.rows))


def stand_in(like: Tensor, rows: Callable[[int, int | None], Tensor]) -> StandIn:
    """A stand-in of the shape, type and need for a gradient of ``like``, on the default device."""
    zero = torch.zeros((), dtype=like.dtype)
    made = StandIn(zero.expand(like.shape), requires_grad=like.requires_grad)
    made.rows = rows
    return made


def hold_places(model: nn.Module, rows: Callable[..., Tensor]) -> None:
    """Replace every parameter by a stand-in. ``rows``: :class:`Rows` of the model."""
    _replace(model, lambda name, parameter: stand_in(parameter, partial(rows, name)))


def cast(model: nn.Module, dtype: torch.dtype, trained: Container[str] = ()) -> None:
    """Parameters to ``dtype``, those named in ``trained`` to float32, without reading those that are in their files.

    Buffers that a checkpoint holds, such as BatchNorm's statistics, go with the parameters of their module. Others,
    such as rotary frequencies, keep the type they were made in, as in transformers' ``from_pretrained``.
    """

    def of(name: str) -> torch.dtype:
        return torch.float32 if name in trained else dtype

    def other(name: str, parameter: nn.Parameter) -> nn.Parameter:
        if isinstance(parameter, StandIn):
            like = torch.empty(parameter.shape, dtype=of(name), device="meta", requires_grad=parameter.requires_grad)
            return stand_in(like, parameter.rows)
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(of(name))
        return parameter

    _replace(model, other)
    for path, module in model.named_modules():
        beside = next((f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)), path)
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point() and name not in module._non_persistent_buffers_set:
                setattr(module, name, buffer.to(of(beside)))


def read_now(model: nn.Module, *parts: nn.Module) -> None:
    """Give the stand-ins in ``parts`` of ``model``, or in all of it, their weights."""
    wanted = {parameter for part in parts or (model,) for parameter in part.parameters()}

    def read(_: str, parameter: nn.Parameter) -> nn.Parameter:
        if not isinstance(parameter, StandIn) or parameter not in wanted:
            return parameter
        return nn.Parameter(parameter.read(), requires_grad=parameter.requires_grad)

    _replace(model, read)


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
        mine = rows(name, *rows_here(parameter)).to(device).to(parameter.dtype)
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
