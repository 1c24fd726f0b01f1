"""CLIP's vision transformer (Radford et al. 2021, arXiv 2103.00020), LLaVA-1.5's encoder."""

from __future__ import annotations

from typing import Any

from transformers import CLIPVisionConfig, CLIPVisionModel
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from vlsafe.models.encoders.base import VisionEncoder


class CLIP(VisionEncoder):
    """The last layer but one, without its class token, as LLaVA-1.5 reads it."""

    config_class = CLIPVisionConfig
    model_class = CLIPVisionModel
    default_weights = "openai/clip-vit-large-patch14-336"
    feature_layer = -2
    class_tokens = 1

    def normalisation(self) -> dict[str, Any]:
        return {"image_mean": list(OPENAI_CLIP_MEAN), "image_std": list(OPENAI_CLIP_STD)}
