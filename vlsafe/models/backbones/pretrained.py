"""PretrainedVLLM: any image-text-to-text checkpoint of Hugging Face, from its config and processor alone."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

from vlsafe.errors import ConfigError
from vlsafe.fetch.paths import resolved
from vlsafe.models.backbones.base import Attention, Backbone, Component, head_path
from vlsafe.models.encoders import efficientnet_lite0

# Where transformers keeps the parts; the first name that exists in the model counts.
_VISION = ("model.vision_tower", "model.visual", "model.vision_model", "model.vision_encoder", "vision_model")
_PROJECTOR = (
    "model.multi_modal_projector",
    "model.visual.merger",
    "model.visual.deepstack_merger_list",
    "model.connector",
    "model.projector",
)

OWN_MODEL_TYPES = (efficientnet_lite0.EfficientNetLite0Config.model_type,)
"""Model types that transformers learns of when our module is imported, so that composed checkpoints load again."""


class PretrainedVLLM(Backbone):
    """A checkpoint that transformers can load as it is. Tests tune LLaVA, LLaVA-NeXT and Idefics3 (SmolVLM); models
    that want more per-token inputs than ids and mask (Qwen-VL, Gemma 3) say so at their first batch with a picture.

    Args:
        checkpoint: hub name, directory or ``cache:NAME``.
        revision: commit, tag or branch on the hub; pin it for a run that others shall repeat.
        trust_remote_code: run model code that the checkpoint brings. Off unless you say so.
        random_weights: build the architecture with random weights (tests, memory planning).
    """

    def __init__(
        self,
        checkpoint: str,
        revision: str | None = None,
        trust_remote_code: bool = False,
        random_weights: bool = False,
        template: str | None = None,
        system_prompt: str | None = None,
        attention: Attention = "auto",
        dtype: Any = "bfloat16",
    ) -> None:
        super().__init__(template, system_prompt, attention, dtype)
        self.checkpoint = checkpoint
        self.random_weights = random_weights
        self._options = {"revision": revision, "trust_remote_code": trust_remote_code}

    def load_processor(self) -> ProcessorMixin:
        processor = AutoProcessor.from_pretrained(self._path(), **self._options)
        if not isinstance(processor, ProcessorMixin):
            raise ConfigError(
                f"{self.checkpoint}: its processor could not be built, only a {type(processor).__name__}; "
                "video processors need torchvision: pip install 'vlsafe[vision]'"
            )
        return processor

    def load_model(self) -> PreTrainedModel:
        if self.random_weights:
            config = AutoConfig.from_pretrained(self._path(), **self._options)
            model = AutoModelForImageTextToText.from_config(config, dtype=self.dtype)
        else:
            model = AutoModelForImageTextToText.from_pretrained(self._path(), dtype=self.dtype, **self._options)
        model.set_attn_implementation({"text_config": self.attention})
        return model

    def modules_of(self, model: PreTrainedModel) -> dict[Component, list[str]]:
        """Found in the model, not told: the decoder by transformers' accessor, the rest by the names that
        transformers uses. A checkpoint with other names needs a subclass that overrides this."""
        names = {name: module for name, module in model.named_modules()}
        decoder = model.get_decoder()
        language = [name for name, module in names.items() if module is decoder] + head_path(model)
        # embeddings of its own that the outer model holds, such as LLaVA-NeXT's line break between rows of a picture
        language += [f"model.{name}" for name, _ in model.model.named_parameters(recurse=False)]
        return {
            "vision": [name for name in _VISION if name in names][:1],
            "projector": [name for name in _PROJECTOR if name in names],
            "language": language,
        }

    def _path(self) -> str:
        return resolved(self.checkpoint)
