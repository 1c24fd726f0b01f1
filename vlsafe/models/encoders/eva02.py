"""EVA-02 of EVA-CLIP (Sun et al. 2023, arXiv 2303.15389) as a vision encoder."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from vlsafe.errors import ConfigError
from vlsafe.models.encoders.base import VisionEncoder
from vlsafe.models.encoders.eva02_model import EVA02Config, EVA02Model

_LARGE = dict(patch_size=14, hidden_size=1024, intermediate_size=2730, num_hidden_layers=24, num_attention_heads=16)
_BASE = dict(patch_size=16, hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12)

PUBLISHED: dict[str, dict[str, int]] = {
    "eva02_large_patch14_clip_336": {"image_size": 336, **_LARGE},
    "eva02_large_patch14_clip_224": {"image_size": 224, **_LARGE},
    "eva02_base_patch16_clip_224": {"image_size": 224, **_BASE},
}
"""``architecture`` in the config.json of timm's checkpoints -> its sizes (``timm/models/eva.py``)."""


class EVA02(VisionEncoder):
    """The last layer but one, without its class token. Reads timm's checkpoints, and those that we save."""

    config_class = EVA02Config
    model_class = EVA02Model
    default_weights = "timm/eva02_large_patch14_clip_336.merged2b"
    feature_layer = -2
    class_tokens = 1

    def normalisation(self) -> dict[str, Any]:
        return {"image_mean": list(OPENAI_CLIP_MEAN), "image_std": list(OPENAI_CLIP_STD)}

    def _read_config(self, path: str) -> PretrainedConfig:
        architecture = PretrainedConfig.get_config_dict(path)[0].get("architecture")
        if architecture is None:
            return super()._read_config(path)
        if architecture not in PUBLISHED:
            raise ConfigError(
                f"{self.weights} is of timm's architecture {architecture!r}; EVA02 reads {', '.join(sorted(PUBLISHED))}"
            )
        return EVA02Config(**PUBLISHED[architecture])
