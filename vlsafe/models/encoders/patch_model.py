"""The patch features of one or more encoders, side by side, as a Hugging Face vision model.

LLaVA's class reads one layer of one tower and can leave out its first token. What it cannot express is done here:
several encoders that see the same picture, and more than one token to leave out (registers).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling


class PatchFeaturesConfig(PretrainedConfig):
    """``parts``: one mapping an encoder, in the order of their features: its ``config``, ``feature_layer``,
    ``extra_tokens`` before its patches, ``image_size``, ``image_mean`` and ``image_std``.

    ``image_size``, ``image_mean`` and ``image_std`` at the top are those of the pictures that come in, ``hidden_size``
    the widths of all parts together.
    """

    model_type = "vlsafe_patch_features"
    image_size: int = 0
    patch_size: int = 1
    hidden_size: int = 0
    image_mean: list[float] | None = None
    image_std: list[float] | None = None
    parts: list[dict[str, Any]] | None = None


class PatchFeaturesModel(PreTrainedModel):
    """``pixel_values`` [B, 3, size, size] -> ``last_hidden_state`` [B, patches, sum of widths], also
    ``hidden_states[-1]``. Every part gets the picture in its own size and with its own normalisation."""

    config_class = PatchFeaturesConfig
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: PatchFeaturesConfig) -> None:
        super().__init__(config)
        whole = torch.get_default_dtype()  # that of the whole model while it loads; a part's config has its own
        self.encoders = nn.ModuleDict(  # by name: a list would look like a stack of layers
            {
                str(place): AutoModel.from_config(AutoConfig.for_model(**part["config"]), dtype=whole)
                for place, part in enumerate(config.parts or ())
            }
        )
        self.post_init()

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutputWithPooling:
        features = []
        for encoder, part in zip(self.encoders.values(), self.config.parts, strict=True):
            layer = part["feature_layer"]  # asked for by its index, as LLaVA does, so that the others are not kept
            hidden = encoder(self._as_seen_by(part, pixel_values), output_hidden_states=layer).hidden_states
            features.append(hidden[layer][:, part["extra_tokens"] :])
        patches = torch.cat(features, dim=-1)
        return BaseModelOutputWithPooling(
            last_hidden_state=patches, pooler_output=patches.mean(1), hidden_states=(patches,)
        )

    def _as_seen_by(self, part: dict[str, Any], pixels: Tensor) -> Tensor:
        size = part["image_size"]
        if pixels.shape[-1] != size:
            pixels = F.interpolate(pixels.float(), (size, size), mode="bicubic", antialias=True).to(pixels.dtype)
        if (part["image_mean"], part["image_std"]) == (self.config.image_mean, self.config.image_std):
            return pixels
        ours = [pixels.new_tensor(values)[:, None, None] for values in (self.config.image_mean, self.config.image_std)]
        theirs = [pixels.new_tensor(part[name])[:, None, None] for name in ("image_mean", "image_std")]
        return (pixels * ours[1] + ours[0] - theirs[0]) / theirs[1]


AutoConfig.register(PatchFeaturesConfig.model_type, PatchFeaturesConfig)
AutoModel.register(PatchFeaturesConfig, PatchFeaturesModel)
