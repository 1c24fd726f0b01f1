"""PaliGemma and PaliGemma 2: a prompt read in both directions, no chat template."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig, ProcessorMixin

from vlsafe.data.processors import PaliGemmaProcessor
from vlsafe.models.backbones.families.base import Family


class PaliGemma(Family):
    """Its prompts are pictures, ``<bos>``, the text and a line break; the answer ends with ``<eos>``."""

    template = "paligemma"

    def load_processor(self, path: str, config: PretrainedConfig, **options: Any) -> ProcessorMixin:
        return PaliGemmaProcessor.from_pretrained(path, **options)
