"""Several encoders whose patch features stand side by side, for example DINOv2 beside SigLIP (``dinov2+siglip``)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from vlsafe.errors import ConfigError
from vlsafe.models.encoders.base import VisionEncoder
from vlsafe.models.encoders.patch_model import PatchFeaturesConfig, PatchFeaturesModel


class PatchFeatures(VisionEncoder):
    """Only the patches of every part, whatever tokens stand before them; widths add up, the patch grids must agree.

    All parts see the same square of the picture. Parts of one fixed size decide the grid, and those of any size follow;
    where all serve any size, the first one's counts. Pictures are prepared in the largest size, and smaller parts see
    them scaled down.

    Args:
        parts: the encoders, in the order of their features.
        image_size: side of the square in pixels, where every part serves any size.
    """

    config_class = PatchFeaturesConfig
    model_class = PatchFeaturesModel
    default_weights = ""
    feature_layer = -1
    class_tokens = 0
    any_size = True

    def __init__(self, parts: list[VisionEncoder], image_size: int | None = None) -> None:
        fixed = [type(part).__name__ for part in parts if not part.any_size]
        if image_size is not None and fixed:
            raise ConfigError(f"{fixed[0]} has one image size, that of its weights; leave image_size out")
        super().__init__("", image_size)
        self._parts = parts if image_size is None else [type(p)(p.weights, image_size) for p in parts]

    @cached_property
    def parts(self) -> list[VisionEncoder]:
        """The encoders in the sizes in use. Raises ConfigError when their patch grids differ."""
        leader = next((part for part in self._parts if not part.any_size), self._parts[0])
        if self.image_size is None:
            parts = [part if part is leader or not part.any_size else _follow(part, leader) for part in self._parts]
        else:
            parts = self._parts
        if len({part.grid for part in parts}) > 1:
            raise ConfigError(
                "fused encoders must see as many patches: "
                + ", ".join(
                    f"{type(part).__name__} has {part.grid} x {part.grid} ({part.config.image_size} px / "
                    f"{part.config.patch_size})"
                    for part in parts
                )
                + "; choose weights of other sizes"
            )
        return parts

    @property
    def config(self) -> PretrainedConfig:
        if self._config is None:
            largest = max(self.parts, key=lambda part: part.config.image_size)
            pictures = _constants(largest)
            self._config = PatchFeaturesConfig(
                image_size=largest.config.image_size,
                patch_size=largest.config.patch_size,
                hidden_size=sum(part.config.hidden_size for part in self.parts),
                **pictures,
                parts=[
                    {
                        "config": part.config.to_dict(),
                        "feature_layer": part.feature_layer,
                        "extra_tokens": part.extra_tokens,
                        "image_size": part.config.image_size,
                        **_constants(part),
                    }
                    for part in self.parts
                ],
            )
        return self._config

    def load(self) -> PreTrainedModel:
        with torch.device("meta"):
            model = PatchFeaturesModel(self.config)
        for place, part in enumerate(self.parts):
            model.encoders[str(place)] = part.load()
        return model

    def normalisation(self) -> dict[str, Any]:
        """That of the part whose size the pictures have, so that padding has its mean colour."""
        return max(self.parts, key=lambda part: part.config.image_size).stated_normalisation()

    def stated_normalisation(self) -> dict[str, Any]:
        return self.normalisation()


def _follow(part: VisionEncoder, leader: VisionEncoder) -> VisionEncoder:
    """``part`` in the size that gives it the leader's grid; with the leader's patch those are the very same pixels."""
    patch = part.config.patch_size
    same = patch == leader.config.patch_size
    return type(part)(part.weights, leader.config.image_size if same else leader.grid * patch)


def _constants(part: VisionEncoder) -> dict[str, Any]:
    constants = part.stated_normalisation()
    return {name: list(constants[name]) for name in ("image_mean", "image_std")}
