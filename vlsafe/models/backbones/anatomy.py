"""Where the parts of a model of transformers stand, found in the model itself."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from transformers import PreTrainedModel

from vlsafe.errors import ConfigError
from vlsafe.models.backbones.base import Component

_PROJECTORS_INSIDE = ("merger", "deepstack_merger_list")
"""Children of a vision encoder that project: Qwen-VL's encoders end with them."""


def anatomy(model: PreTrainedModel) -> dict[Component, list[str]]:
    """``vision``, ``projector`` and ``language`` -> fully qualified paths, none inside another.

    The decoder, the vision encoder and the head by transformers' own accessors; the projector is what is left.
    Parameters that the outer model holds itself, such as LLaVA-NeXT's line break between rows of a picture, are
    embeddings of the sequence and belong to ``language``.

    Raises ConfigError when the model has no decoder, vision encoder or projector that can be told apart.
    """
    decoder, vision, head = model.get_decoder(), model.get_encoder("image"), model.get_output_embeddings()
    whole = (model, model.base_model, None)
    missing = [name for name, part in (("decoder", decoder), ("vision encoder", vision)) if part in whole]
    if missing:
        raise ConfigError(_unknown(model, missing))
    names = {module: name for name, module in model.named_modules()}
    outside = [names[part] for part in _outside(model, [part for part in (decoder, vision, head) if part is not None])]
    inside = [name for name, _ in vision.named_children() if name in _PROJECTORS_INSIDE]
    projector = outside + [f"{names[vision]}.{name}" for name in inside]
    if not projector:
        raise ConfigError(_unknown(model, ["projector"]))
    loose = [name for name, _ in model.named_parameters() if name.rpartition(".")[0] in (names[model.base_model], "")]
    return {
        "vision": _without(vision, names[vision], inside) if inside else [names[vision]],
        "projector": projector,
        "language": [names[decoder], *([names[head]] if head is not None else []), *loose],
    }


def _outside(module: nn.Module, parts: list[nn.Module]) -> Iterator[nn.Module]:
    """The largest modules that hold parameters and none of ``parts``."""
    for child in module.children():
        held = set(child.modules())
        if child in parts:
            continue
        if any(part in held for part in parts):
            yield from _outside(child, parts)
        elif any(True for _ in child.parameters()):
            yield child


def _without(vision: nn.Module, path: str, inside: list[str]) -> list[str]:
    """Children of the vision encoder that are not projectors, and its parameters that stand in no child."""
    children = [name for name, child in vision.named_children() if name not in inside and list(child.parameters())]
    return [f"{path}.{name}" for name in children + [name for name, _ in vision.named_parameters(recurse=False)]]


def _unknown(model: PreTrainedModel, missing: list[str]) -> str:
    return (
        f"{type(model).__name__}: transformers names no {' and no '.join(missing)} in it; subclass "
        "vlsafe.PretrainedVLLM and name the parts in modules_of"
    )
