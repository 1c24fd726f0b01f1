"""SmolVLM 2: Idefics3 whose processor also handles video."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin

from vlsafe.data.processors import SmolVLMProcessor
from vlsafe.models.backbones.families.base import Family


class SmolVLM(Family):
    """Its processor differs, and how it joins images and text. SmolVLM 1 calls itself ``idefics3``, a plain Family."""

    def load_processor(self, path: str, config: PretrainedConfig, **options: Any) -> ProcessorMixin:
        return SmolVLMProcessor.from_pretrained(path, **options)

    def prepare(self, model: PreTrainedModel) -> None:
        """Image features are cast to the type of the model's first weight, the encoder's, and text must have it too:
        where the encoder trains that is float32, beside a frozen language model in less."""
        embeddings = model.get_input_embeddings()
        embeddings.register_forward_hook(lambda _, args, output: output.to(model.dtype))
