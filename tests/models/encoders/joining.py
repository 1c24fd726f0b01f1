"""Shared by the tests of encoders: tiny composed models, and what the projector reads of a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny import VISION, ask, language_model
from torch import Tensor
from transformers import (
    PreTrainedModel,
)

from vlsafe import ComposedVLLM
from vlsafe.conversation import ImageRef
from vlsafe.data.collate import Collate
from vlsafe.data.encoding import Encoding
from vlsafe.models.encoders import ENCODERS

FUSED = "dinov2+siglip"


WEIGHTS: dict[str, Any] = {**VISION, FUSED: [VISION["dinov2"], VISION["siglip"]]}


NAMES = sorted([*ENCODERS.names(), FUSED])


EXTRA = {"clip": 1, "dinov2": 1, "dinov2_registers": 5, "eva02": 1}
"""Tokens before the patches; the others have none."""


CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


CONSTANTS = {
    "clip": (CLIP_MEAN, CLIP_STD),
    "eva02": (CLIP_MEAN, CLIP_STD),
    "dinov2": (IMAGENET_MEAN, IMAGENET_STD),
    "dinov2_registers": (IMAGENET_MEAN, IMAGENET_STD),
    "siglip": ([0.5] * 3, [0.5] * 3),
    "siglip2": ([0.5] * 3, [0.5] * 3),
    "efficientnet_lite0": ([127 / 255] * 3, [128 / 255] * 3),
    FUSED: (IMAGENET_MEAN, IMAGENET_STD),
}


def joined(tokenizer: Path, encoder: str, weights: Any = None, **options: Any) -> ComposedVLLM:
    weights = WEIGHTS[encoder] if weights is None else weights
    return ComposedVLLM(encoder, language_model(tokenizer), weights, attention="sdpa", **options)


def batch_of(backbone: ComposedVLLM, picture: ImageRef) -> dict[str, Tensor]:
    encoding = Encoding(backbone.processor)
    return Collate(0)([encoding.sample(ask("colour?", "red", picture))]).inputs


def noise(side: int) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def read_by_projector(model: Any, pixels: Tensor) -> Tensor:
    """What goes into the projector: [pictures, tokens, width]."""
    seen: list[Tensor] = []
    hook = model.model.multi_modal_projector.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.get_image_features(pixels)
    hook.remove()
    return seen[0]


@torch.inference_mode()
def hidden_states(tower: PreTrainedModel, pixels: Tensor) -> tuple[Tensor, ...]:
    return tower(pixels, output_hidden_states=True).hidden_states
