"""What is done to one block after another: activations recomputed in the backward pass, kernels compiled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from vlsafe.errors import ConfigError
from vlsafe.strategies.blocks import blocks_of


def recompute(
    model: PreTrainedModel, every: Mapping[Any, int] | Literal[True], component_of: Mapping[str, str]
) -> None:
    """Keep no activations inside every n-th block of a component: ``{"language": 1}`` of all its blocks, ``2`` of every
    second one, 0 of none. Less memory, and up to a fifth more time where it is all blocks.

    Args:
        component_of: parameter of the model -> its component.

    Raises:
        ConfigError: a component that has no blocks, or a number below 0.
    """
    blocks = _blocks(model, component_of)
    every = dict.fromkeys(blocks, 1) if every is True else every
    for component, n in every.items():
        if n < 0 or (n and component not in blocks):
            known = ", ".join(sorted(blocks))
            raise ConfigError(
                f"model.activation_checkpointing.{component} is {n}; give 0 or more, to what has blocks: {known}"
            )
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    chosen = {id(b) for c, found in blocks.items() if every.get(c) for b in found[:: every[c]]}
    for found in blocks.values():
        for block in found:
            block.gradient_checkpointing = id(block) in chosen


def _blocks(model: nn.Module, component_of: Mapping[str, str]) -> dict[str, list[GradientCheckpointingLayer]]:
    found: dict[str, list[GradientCheckpointingLayer]] = {}
    for path, module in model.named_modules():
        if isinstance(module, GradientCheckpointingLayer):
            name = next((name for name in component_of if name.startswith(f"{path}.")), None)
            if name is not None:
                found.setdefault(component_of[name], []).append(module)
    return found


def compile_blocks(model: nn.Module) -> None:
    """``torch.compile`` of each block in its place: names and classes stay, and equal blocks share their kernels."""
    for block in blocks_of(model):
        block.compile(dynamic=True)
