"""DINOv2 (Oquab et al. 2023, arXiv 2304.07193)."""

from __future__ import annotations

from typing import Any

from transformers import Dinov2Config, Dinov2Model
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from vlsafe.models.encoders.base import VisionEncoder


class DINOv2(VisionEncoder):
    """The last layer but one, without its class token."""

    config_class = Dinov2Config
    model_class = Dinov2Model
    default_weights = "facebook/dinov2-large"
    feature_layer = -2
    class_tokens = 1

    def normalisation(self) -> dict[str, Any]:
        return {"image_mean": list(IMAGENET_DEFAULT_MEAN), "image_std": list(IMAGENET_DEFAULT_STD)}
