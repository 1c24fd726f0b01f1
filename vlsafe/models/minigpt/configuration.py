"""MiniGPT-v2's sizes."""

from __future__ import annotations

from typing import Any

from transformers import Blip2VisionConfig, LlamaConfig, PretrainedConfig


class MiniGPTv2Config(PretrainedConfig):
    """The defaults are those of the published model; sizes are from ``create_eva_vit_g`` and ``MiniGPTv2`` in the
    MiniGPT-4 repository (minigpt4/models/eva_vit.py, minigpt_v2.py).

    Args:
        vision_config: EVA ViT-g, which transformers knows as BLIP-2's encoder: 39 of EVA's 40 blocks, 1408 wide.
        text_config: Llama-2-chat.
        image_token_id: id of ``<ImageHere>``, the first one after Llama's own.
        merged_tokens: neighbouring patches, in reading order, that become one token of the language model.
        feature_norm_eps: of the layer norm after the encoder, which is 1e-5 there and 1e-6 within the encoder.
    """

    model_type = "minigpt_v2"
    sub_configs = {"vision_config": Blip2VisionConfig, "text_config": LlamaConfig}

    vision_config: Any = None
    text_config: Any = None
    image_token_id: int = 32000
    merged_tokens: int = 4
    feature_norm_eps: float = 1e-5

    def __post_init__(self, **kwargs: Any) -> None:
        self.vision_config = _config(Blip2VisionConfig, self.vision_config, image_size=448)
        self.text_config = _config(LlamaConfig, self.text_config)
        self.tie_word_embeddings = self.text_config.tie_word_embeddings
        super().__post_init__(**kwargs)
        if self.patches % self.merged_tokens:
            raise ValueError(f"{self.patches} patches cannot be merged in groups of {self.merged_tokens}")

    @property
    def patches(self) -> int:
        """Patches of a picture, without the class token; 1024 in the published model."""
        return (self.vision_config.image_size // self.vision_config.patch_size) ** 2

    @property
    def image_seq_length(self) -> int:
        """Tokens of a picture in the language model; 256 in the published model."""
        return self.patches // self.merged_tokens


def _config(kind: type[PretrainedConfig], given: Any, **defaults: Any) -> PretrainedConfig:
    return given if isinstance(given, PretrainedConfig) else kind(**defaults | (given or {}))
