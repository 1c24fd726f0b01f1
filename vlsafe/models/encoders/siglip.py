"""The vision transformers of SigLIP (Zhai et al. 2023, arXiv 2303.15343) and SigLIP 2 (Tschannen et al. 2025, arXiv
2502.14786)."""

from __future__ import annotations

from typing import Any

from transformers import SiglipVisionConfig, SiglipVisionModel
from transformers.image_utils import PILImageResampling

from vlsafe.models.encoders.base import VisionEncoder


class SigLIP(VisionEncoder):
    """The last layer but one; SigLIP has no class token."""

    config_class = SiglipVisionConfig
    model_class = SiglipVisionModel
    default_weights = "google/siglip-so400m-patch14-384"
    feature_layer = -2
    class_tokens = 0

    def normalisation(self) -> dict[str, Any]:
        return {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


class SigLIP2(SigLIP):
    """The checkpoints of one resolution, which have SigLIP's architecture. The NaFlex ones, whose pictures keep their
    shape, have another one and are refused."""

    default_weights = "google/siglip2-so400m-patch14-384"

    def normalisation(self) -> dict[str, Any]:
        return {**super().normalisation(), "resample": PILImageResampling.BILINEAR}
