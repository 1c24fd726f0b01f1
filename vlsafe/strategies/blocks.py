"""The blocks of a model: what is sharded, recomputed or compiled one at a time."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from transformers import PreTrainedModel


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The elements of every outermost list of equal layers: decoder layers, and those of each vision encoder.

    Whole encoders are never blocks: transformers registers what it records of them under their class, which sharding
    changes.
    """
    return list(_blocks(model))


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if _is_stack(child):
            yield from child.children()
        else:
            yield from _blocks(child)


def _is_stack(module: nn.Module) -> bool:
    layers = list(module.children()) if isinstance(module, nn.ModuleList) else []
    return (
        bool(layers)
        and len({type(layer) for layer in layers}) == 1
        and all(not isinstance(layer, PreTrainedModel) and any(True for _ in layer.parameters()) for layer in layers)
    )
