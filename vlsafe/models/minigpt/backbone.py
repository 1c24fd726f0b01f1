"""MiniGPTv2: the VLGuard paper's second model, to be tuned like any other."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin

from vlsafe.errors import ConfigError
from vlsafe.fetch.paths import resolved
from vlsafe.models.backbones.base import Attention, Backbone, Component
from vlsafe.models.backbones.pieces import opened
from vlsafe.models.minigpt import MiniGPTv2Config, MiniGPTv2ForConditionalGeneration, MiniGPTv2Processor


class MiniGPTv2(Backbone):
    """A MiniGPT-v2 checkpoint in Hugging Face layout, as ``python -m vlsafe convert`` writes it.

    MiniGPT-v2's own third stage, and the VLGuard paper's safety tuning after it, train the language model by LoRA and
    the projector in full, with the encoder frozen.

    Args:
        checkpoint: directory, hub name or ``cache:NAME``.
    """

    padding_free = True

    def __init__(
        self,
        checkpoint: str,
        template: str | None = None,
        system_prompt: str | None = None,
        attention: Attention = "auto",
        dtype: Any = "bfloat16",
    ) -> None:
        super().__init__(template, system_prompt, attention, dtype)
        self.checkpoint = checkpoint

    def load_processor(self) -> ProcessorMixin:
        return MiniGPTv2Processor.from_pretrained(self._path())

    def configured(self) -> PretrainedConfig:
        return MiniGPTv2Config.from_pretrained(self._path())

    def load_model(self) -> PreTrainedModel:
        path = self._path()
        pieces = opened(path, MiniGPTv2Config.from_pretrained(path), getattr(torch, self.dtype))
        return pieces or MiniGPTv2ForConditionalGeneration.from_pretrained(path, dtype=self.dtype)

    def modules_of(self, model: PreTrainedModel) -> dict[Component, list[str]]:
        return {
            "vision": ["model.vision_tower"],
            "projector": ["model.multi_modal_projector"],
            "language": ["model.language_model", "lm_head"],
        }

    def _path(self) -> str:
        path = resolved(self.checkpoint)
        found, _ = MiniGPTv2Config.get_config_dict(path)
        if found.get("model_type") != MiniGPTv2Config.model_type:
            raise ConfigError(
                f"{self.checkpoint}: no MiniGPT-v2 in Hugging Face layout (its model_type is "
                f"{found.get('model_type')!r}); convert the published weights with `python -m vlsafe convert`, and use "
                "PretrainedVLLM for other models"
            )
        return path
