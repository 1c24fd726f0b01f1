"""SmolVLM 2: Idefics3 whose processor also handles video."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig, ProcessorMixin

from vlsafe.data.processors import SmolVLMProcessor
from vlsafe.models.backbones.families.base import Family


class SmolVLM(Family):
    """Nothing but its processor differs. SmolVLM 1 calls itself ``idefics3`` and needs nothing."""

    def load_processor(self, path: str, config: PretrainedConfig, **options: Any) -> ProcessorMixin:
        return SmolVLMProcessor.from_pretrained(path, **options)
