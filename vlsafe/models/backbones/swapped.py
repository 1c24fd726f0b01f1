"""SwappedVLLM: a LLaVA checkpoint that sees through another vision encoder."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from transformers import (
    AutoConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from vlsafe.errors import ConfigError
from vlsafe.fetch.paths import resolved
from vlsafe.models.backbones.base import Attention
from vlsafe.models.backbones.composed import ComposedVLLM, VisionTokens
from vlsafe.models.backbones.pieces import opened
from vlsafe.models.backbones.pretrained import PretrainedVLLM
from vlsafe.models.encoders import Weights
from vlsafe.models.encoders.base import ImageFit


class SwappedVLLM(ComposedVLLM):
    """The language model, tokenizer and chat template of a LLaVA checkpoint (``model_type: llava``) behind another
    vision encoder. It saves and loads as a ComposedVLLM does.

    The projector starts anew, and then wants a first stage of its own (``experiments/pretrain_projector_*.yaml``).

    Args:
        checkpoint: hub name, directory or ``cache:NAME`` of the LLaVA checkpoint.
        keep_projector: take over the checkpoint's projector instead, for an encoder whose features mean the same, such
            as the same one tuned further. An error where the widths differ.
        revision: commit, tag or branch of the checkpoint on the hub.
        vision_encoder, vision_weights, projector, image_fit, image_size, vision_tokens, projector_seed,
            projector_weights: as for :class:`ComposedVLLM`; ``projector`` is not read where the checkpoint's is kept.
    """

    def __init__(
        self,
        checkpoint: str,
        vision_encoder: str,
        vision_weights: Weights | list[Weights] = None,
        keep_projector: bool = False,
        projector: str = "mlp2x_gelu",
        image_fit: ImageFit = "pad",
        image_size: int | None = None,
        vision_tokens: VisionTokens = "patches",
        projector_seed: int = 0,
        projector_weights: str | None = None,
        revision: str | None = None,
        template: str | None = None,
        system_prompt: str | None = None,
        attention: Attention = "auto",
        dtype: Any = "bfloat16",
    ) -> None:
        super().__init__(
            vision_encoder=vision_encoder,
            language_model=checkpoint,
            vision_weights=vision_weights,
            projector=projector,
            image_fit=image_fit,
            image_size=image_size,
            vision_tokens=vision_tokens,
            projector_seed=projector_seed,
            projector_weights=projector_weights,
            template=template,
            system_prompt=system_prompt,
            attention=attention,
            dtype=dtype,
        )
        if keep_projector and projector_weights is not None:
            raise ConfigError("keep_projector takes the checkpoint's projector, projector_weights another; name one")
        self.checkpoint = checkpoint
        self.keep_projector = keep_projector
        self.revision = revision

    @cached_property
    def _original(self) -> LlavaConfig:
        """The checkpoint's config. Raises ConfigError when it is no LLaVA, or its projector cannot be kept."""
        config: PretrainedConfig = AutoConfig.from_pretrained(resolved(self.checkpoint), revision=self.revision)
        if not isinstance(config, LlavaConfig):
            raise ConfigError(
                f"{self.checkpoint} is of type {config.model_type!r}; vision encoders are swapped in 'llava' "
                "checkpoints only, others tie their language model to the layout of their own encoder's features"
            )
        if self.keep_projector:
            self._check_kept_projector(config)
        return config

    def _check_kept_projector(self, config: LlavaConfig) -> None:
        layers = config.vision_feature_layer
        width = config.vision_config.hidden_size * (1 if isinstance(layers, int) else len(layers))
        if width != self.encoder.config.hidden_size:
            raise ConfigError(
                f"keep_projector: the projector of {self.checkpoint} reads features of width {width}, the new encoder "
                f"gives {self.encoder.config.hidden_size}; leave keep_projector out, and train a new one first"
            )

    def load_processor(self) -> ProcessorMixin:
        assert self._original is not None  # what is wrong with the checkpoint is told before any weight is read
        return super().load_processor()

    def _tokenizer(self) -> tuple[PreTrainedTokenizerBase, str | None]:
        original = PretrainedVLLM(self.checkpoint, self.revision).load_processor()
        return original.tokenizer, original.chat_template

    def _load_language(self) -> PreTrainedModel:
        path = resolved(self.checkpoint)
        pieces = opened(path, self._original, getattr(torch, self.dtype), revision=self.revision)
        return pieces or LlavaForConditionalGeneration.from_pretrained(path, revision=self.revision, dtype=self.dtype)

    def _projector_fields(self) -> dict[str, Any]:
        if not self.keep_projector:
            return super()._projector_fields()
        names = ("projector_hidden_act", "multimodal_projector_bias")
        return {name: getattr(self._original, name) for name in names}

    def _start_projector(self, model: LlavaForConditionalGeneration, language: PreTrainedModel) -> None:
        if self.keep_projector:
            model.model.multi_modal_projector = language.model.multi_modal_projector
        else:
            super()._start_projector(model, language)
