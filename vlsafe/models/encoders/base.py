"""What a vision encoder must tell the rest: its model, its size and its picture normalisation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

from transformers import PretrainedConfig, PreTrainedModel
from transformers.image_processing_base import ImageProcessingMixin
from transformers.image_utils import PILImageResampling
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from vlsafe.errors import ConfigError
from vlsafe.fetch.paths import resolved

ImageFit = Literal["pad", "crop", "resize"]


class VisionEncoder(ABC):
    """A vision encoder for a ComposedVLLM or a SwappedVLLM.

    Image size, patch count, width, feature layer and class tokens are read from here alone, so the processor and the
    model cannot disagree. A new encoder is a subclass that names its classes and constants.

    Args:
        weights: a directory, a hub name or ``cache:NAME``; a mapping of config fields builds random weights.
        image_size: side of the square picture in pixels, for an encoder that takes any; None is that of its weights.
    """

    config_class: ClassVar[type[PretrainedConfig]]
    model_class: ClassVar[type[PreTrainedModel]]
    default_weights: ClassVar[str]
    feature_layer: ClassVar[int]
    """Index into ``hidden_states``; the layer whose output the projector reads."""
    class_tokens: ClassVar[int]
    """Class tokens before the patches in ``hidden_states``."""
    any_size: ClassVar[bool] = False
    """Whether the weights serve pictures of any size, as those of a convolutional encoder do."""

    def __init__(self, weights: str | dict[str, Any] | None = None, image_size: int | None = None) -> None:
        if image_size is not None and not self.any_size:
            raise ConfigError(f"{type(self).__name__} has one image size, that of its weights; leave image_size out")
        self.weights = self.default_weights if weights is None else weights
        self.image_size = image_size
        self._config: PretrainedConfig | None = None

    @property
    def config(self) -> PretrainedConfig:
        """The encoder's config, with the image size in use. Raises ConfigError when the weights are of another kind."""
        if self._config is None:
            if isinstance(self.weights, dict):
                self._config = self.config_class(**self.weights)
            else:
                self._config = self._read_config(resolved(self.weights))
            if self.image_size is not None:
                self._config.image_size = self.image_size
                self._check_size()
        return self._config

    @property
    def extra_tokens(self) -> int:
        """Tokens before the patches in ``hidden_states``: class tokens, and registers where there are any."""
        return self.class_tokens

    @property
    def grid(self) -> int:
        """Patches along a side; a picture has grid x grid of them."""
        return self.config.image_size // self.config.patch_size

    def load(self) -> PreTrainedModel:
        """The encoder in fp32: with its weights, or random where only a config was given.

        Raises ConfigError when the weights lack a tensor, which would otherwise stay random.
        """
        if isinstance(self.weights, dict):
            return self.model_class(self.config)
        return self._from_weights(self.config)

    @abstractmethod
    def normalisation(self) -> dict[str, Any]:
        """``image_mean``, ``image_std`` and, where it is not bicubic, ``resample`` of the image processor, for weights
        that do not state their own."""

    def stated_normalisation(self) -> dict[str, Any]:
        """The same three as the weights' own ``preprocessor_config.json`` states them, else :meth:`normalisation`."""
        known = {"resample": PILImageResampling.BICUBIC, **self.normalisation()}
        if isinstance(self.weights, dict):
            return known
        try:
            stated, _ = ImageProcessingMixin.get_image_processor_dict(resolved(self.weights))
        except OSError:  # weights without that file
            return known
        return {name: stated.get(name, value) for name, value in known.items()}

    def image_processor(self, fit: ImageFit) -> LlavaImageProcessorPil:
        """Pictures to tensors [1, 3, size, size].

        ``pad`` fills up to a square with the mean colour (LLaVA-1.5's own), ``crop`` cuts the centre out,
        ``resize`` squeezes both sides to the size.
        """
        size = self.config.image_size
        square = {"height": size, "width": size}
        return LlavaImageProcessorPil(
            do_pad=fit == "pad",
            size={"shortest_edge": size} if fit == "crop" else square,
            do_center_crop=fit == "crop",
            crop_size=square,
            **self.stated_normalisation(),
        )

    def _read_config(self, path: str) -> PretrainedConfig:
        """The config of weights at ``path``; transformers itself would read that of any model, with a warning."""
        found = PretrainedConfig.get_config_dict(path)[0].get("model_type")
        known = self.config_class.model_type
        if found not in (known, known.removesuffix("_vision_model")):  # the encoder alone, or the model it is part of
            raise ConfigError(
                f"{self.weights} holds a model of type {found!r}, which is no {type(self).__name__} ({known!r}); "
                "name the encoder that it is, or other vision_weights"
            )
        return self.config_class.from_pretrained(path)

    def _from_weights(self, config: PretrainedConfig) -> PreTrainedModel:
        model, report = self.model_class.from_pretrained(
            resolved(str(self.weights)), config=config, dtype="float32", output_loading_info=True
        )
        if report["missing_keys"]:
            names = sorted(report["missing_keys"])
            raise ConfigError(
                f"{self.weights} lacks {len(names)} tensors of {type(self).__name__}, first {names[0]!r}; "
                "name the encoder that these weights are of, or other vision_weights"
            )
        return model

    def _check_size(self) -> None:
        if self.config.image_size % self.config.patch_size:
            raise ConfigError(
                f"image_size {self.config.image_size} is no multiple of the encoder's patch of {self.config.patch_size}"
            )
