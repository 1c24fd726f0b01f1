"""What is done to one block after another: activations recomputed in the backward pass, kernels compiled."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from vlsafe.errors import ConfigError
from vlsafe.strategies.blocks import blocks_of


def recompute(
    model: PreTrainedModel, every: Mapping[Any, int] | Literal[True], component_of: Mapping[str, str]
) -> None:
    """Keep no activations inside every n-th block of a component: ``{"language": 1}`` of all its blocks, ``2`` of every
    second one, 0 of none. Less memory, and up to a fifth more time where it is all blocks.

    Call it after adapters are in place: transformers' and PEFT's own ways make every embedding's output need a
    gradient, the vision side's too, so that a frozen encoder would keep all of its graph. Checkpoints that are not
    re-entrant need no such thing.

    Args:
        component_of: parameter of the model, adapters among them -> its component.

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
    chosen = [block for c, found in blocks.items() if every.get(c) for block in found[:: every[c]]]
    for block in chosen:
        block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        block.gradient_checkpointing = True


def keep_all(model: nn.Module) -> None:
    """Undo :func:`recompute`."""
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.gradient_checkpointing = False


def _blocks(model: nn.Module, component_of: Mapping[str, str]) -> dict[str, list[GradientCheckpointingLayer]]:
    found: dict[str, list[GradientCheckpointingLayer]] = {}
    for path, module in model.named_modules():
        # beside a block that trains in full PEFT keeps the one it came with, which never runs
        if isinstance(module, GradientCheckpointingLayer) and ".original_module" not in path:
            name = next((name for name in component_of if name.startswith(f"{path}.")), None)
            if name is not None:
                found.setdefault(component_of[name], []).append(module)
    return found


def words_need_gradients(model: PreTrainedModel) -> None:
    """Make the language model's input need a gradient on every rank, whether its batch has pictures or not; the vision
    side's is left alone, since a frozen encoder shall keep no graph."""

    def require(module: nn.Module, args: Any, output: Tensor) -> None:
        output.requires_grad_(True)

    model.get_input_embeddings().register_forward_hook(require)


def compile_blocks(model: nn.Module) -> None:
    """``torch.compile`` of each block in its place: names and classes stay, and equal blocks share their kernels."""
    for block in blocks_of(model):
        block.compile(dynamic=True)
