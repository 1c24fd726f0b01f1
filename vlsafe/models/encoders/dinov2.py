"""DINOv2 (Oquab et al. 2023, arXiv 2304.07193), without and with registers (Darcet et al. 2023, arXiv 2309.16588)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    PreTrainedModel,
)
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from vlsafe.fetch.paths import resolved
from vlsafe.models.encoders.base import VisionEncoder


class DINOv2(VisionEncoder):
    """The last layer but one, without its class token."""

    config_class = Dinov2Config
    model_class = Dinov2Model
    default_weights = "facebook/dinov2-large"
    feature_layer = -2
    class_tokens = 1
    any_size = True

    def normalisation(self) -> dict[str, Any]:
        return {"image_mean": list(IMAGENET_DEFAULT_MEAN), "image_std": list(IMAGENET_DEFAULT_STD)}

    def load(self) -> PreTrainedModel:
        """Position embeddings are resampled once to the image size in use, as DINOv2 itself does in every forward, so
        that the saved config and weights agree with the pictures."""
        if isinstance(self.weights, dict) or self.image_size is None:
            return super().load()
        model = self._from_weights(self.config_class.from_pretrained(resolved(self.weights)))
        size, embeddings = self.config.image_size, model.embeddings
        with torch.no_grad():
            dummy = torch.empty(1, self.grid**2 + 1, 1)
            positions = embeddings.interpolate_pos_encoding(dummy.expand(-1, -1, self.config.hidden_size), size, size)
        embeddings.position_embeddings = nn.Parameter(positions.clone())
        model.config.image_size = size
        return model

    def _check_size(self) -> None:
        """Any size will do: pixels at the edge that fill no patch are left out, as SigLIP leaves out its own."""


class DINOv2Registers(DINOv2):
    """DINOv2 with registers: tokens between the class token and the patches that hold no place in the picture."""

    config_class = Dinov2WithRegistersConfig
    model_class = Dinov2WithRegistersModel
    default_weights = "facebook/dinov2-with-registers-large"

    @property
    def extra_tokens(self) -> int:
        return self.class_tokens + self.config.num_register_tokens
