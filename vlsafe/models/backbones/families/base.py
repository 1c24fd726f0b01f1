"""What an architecture may need beyond its config and its processor. Most need nothing of this."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import AutoProcessor, PretrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from vlsafe.data.processors import image_only
from vlsafe.data.tokenizers import follow_sentencepiece, sentencepiece_file
from vlsafe.errors import ConfigError
from vlsafe.models.backbones.base import Backbone
from vlsafe.models.backbones.features import image_features, summed


class Family:
    """The answers that hold for every architecture that brings no code of its own."""

    template: str | None = None
    """Name of our chat template, where its checkpoints bring none."""

    def load_processor(self, path: str, config: PretrainedConfig, **options: Any) -> ProcessorMixin:
        """The checkpoint's processor, without what handles video. Raises ConfigError when it cannot be built."""
        kind = PROCESSOR_MAPPING.get(type(config), None)
        if kind is not None and "video_processor" in kind.get_attributes():
            return image_only(kind).from_pretrained(path, **options)
        file = sentencepiece_file(path, options.get("revision"))
        processor = AutoProcessor.from_pretrained(path, **options)
        if not isinstance(processor, ProcessorMixin):
            raise ConfigError(
                f"{path}: its processor could not be built, only a {type(processor).__name__}; it needs a "
                "processor_config.json or preprocessor_config.json beside its tokenizer"
            )
        if file is not None:
            follow_sentencepiece(processor.tokenizer, file)
        return processor

    def prepare(self, model: PreTrainedModel) -> None:
        """Change a loaded model in place, where transformers leaves something to mend."""

    image_only = Backbone.image_only
    """As of :class:`vlsafe.models.backbones.base.Backbone`."""

    def with_blank_image(
        self, inputs: dict[str, Tensor], features: list[Tensor]
    ) -> tuple[dict[str, Tensor], Tensor | float]:
        """As of :class:`vlsafe.models.backbones.base.Backbone`. ``features``: of one blank image."""
        return inputs, 0 * summed(features)

    def image_features(self, model: PreTrainedModel, pictures: dict[str, Tensor]) -> list[Tensor]:
        """Features of pictures as the language model gets them, one or more tensors a picture. ``pictures`` is what
        the image processor returns."""
        return image_features(model, pictures)
