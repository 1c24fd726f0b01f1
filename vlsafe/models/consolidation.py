"""The weights of a model that lies in pieces on several processes, put together on one of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vlsafe.strategies.shards import local, on_first


def whole_state(
    model: nn.Module,
    here: bool,
    wanted: Callable[[str], bool] = lambda name: True,
    dtype: torch.dtype | None = None,
) -> dict[str, Tensor]:
    """The tensors of ``model`` with a ``wanted`` name, whole; empty where they are not wanted ``here``.

    Of a model in pieces every process must call it, and they are wanted on the first: one tensor after the other is put
    together on its CPU, and the others never hold more than their pieces. What is whole already is not copied.

    Args:
        dtype: of floating numbers; None leaves each in its own.
    """
    found: dict[str, Tensor] = {}
    made: dict[int, Tensor | None] = {}  # a tied head is the embeddings under a second name
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not wanted(name):
            continue
        if id(tensor) not in made:
            made[id(tensor)] = on_first(tensor.detach())
        value = made[id(tensor)]
        if here and value is not None:
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
