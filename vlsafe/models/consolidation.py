"""The weights of a model that lies in pieces on several processes, put together on one of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vlsafe.strategies.shards import local, whole


def whole_state(
    model: nn.Module,
    here: bool,
    wanted: Callable[[str], bool] = lambda name: True,
    dtype: torch.dtype | None = None,
) -> dict[str, Tensor]:
    """The tensors of ``model`` with a ``wanted`` name, whole; empty where they are not wanted ``here``.

    Of a model in pieces every process must call it. One tensor after the other is put together on the devices and
    kept on the CPU of this process, so that nobody else ever holds more than one. What is whole already is not copied.

    Args:
        dtype: of floating numbers; None leaves each in its own.
    """
    found: dict[str, Tensor] = {}
    made: dict[int, Tensor] = {}  # a tied head is the embeddings under a second name
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not wanted(name):
            continue
        value = made.get(id(tensor))
        if value is None:
            value = whole(tensor.detach())
        if here:
            value = value.to(dtype) if dtype is not None and value.is_floating_point() else value
            found[name] = made[id(tensor)] = value
    return found


@torch.no_grad()
def round_to(model: nn.Module, dtype: torch.dtype) -> None:
    """Give every floating number of a state a value that ``dtype`` has, in place. What is cut keeps its type."""
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            rows = local(tensor)
            rows.copy_(rows.to(dtype))
