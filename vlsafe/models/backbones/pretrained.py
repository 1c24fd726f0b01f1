"""PretrainedVLLM: any image-text-to-text checkpoint of Hugging Face, from its config and processor alone."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, PretrainedConfig, PreTrainedModel, ProcessorMixin

import vlsafe.models.encoders  # these two tell transformers of model types of ours, so that such checkpoints load
import vlsafe.models.minigpt  # noqa: F401
from vlsafe.errors import ConfigError
from vlsafe.fetch.paths import resolved
from vlsafe.models.backbones.anatomy import anatomy
from vlsafe.models.backbones.base import Attention, Backbone, Component
from vlsafe.models.backbones.families import FAMILIES, PADDING_FREE
from vlsafe.models.backbones.families.base import Family
from vlsafe.models.backbones.image_fit import CheckpointFit, pad_to_square
from vlsafe.models.backbones.pieces import opened
from vlsafe.models.projector_weights import projector_file, put_projector


class PretrainedVLLM(Backbone):
    """A checkpoint that transformers can load as it is. docs/families.md lists the families that are tested; any other
    image-text-to-text checkpoint is served too, and :meth:`inferred` says what was found in it.

    Raises ConfigError, when its config is first read, for the folder of an adapter: that is no whole model.

    Args:
        checkpoint: hub name, directory or ``cache:NAME``.
        revision: commit, tag or branch on the hub; pin it for a run that others shall repeat.
        trust_remote_code: run model code that the checkpoint brings. Off unless you say so.
        random_weights: build the architecture with random weights (tests, memory planning).
        image_fit: ``checkpoint`` fits images as its processor says; ``pad`` fills them up to a square first, as
            LLaVA-1.5 was tuned and as its checkpoint on the hub does not
            (:func:`vlsafe.models.backbones.image_fit.pad_to_square`).
        projector_weights: the projector's weights in place of the checkpoint's, as for :class:`vlsafe.ComposedVLLM`.
        processor: folder of another processor to use, such as that of an exported adapter; None is the checkpoint's.
    """

    def __init__(
        self,
        checkpoint: str,
        revision: str | None = None,
        trust_remote_code: bool = False,
        random_weights: bool = False,
        image_fit: CheckpointFit = "checkpoint",
        projector_weights: str | None = None,
        processor: str | None = None,
        template: str | None = None,
        system_prompt: str | None = None,
        attention: Attention = "auto",
        dtype: Any = "bfloat16",
    ) -> None:
        super().__init__(template, system_prompt, attention, dtype)
        self.checkpoint = checkpoint
        self.image_fit = image_fit
        self.projector_weights = projector_weights
        self._processor_path = processor
        self.random_weights = random_weights
        self.revision = revision
        self._options = {"revision": revision, "trust_remote_code": trust_remote_code}

    @cached_property
    def config(self) -> PretrainedConfig:
        return AutoConfig.from_pretrained(self._path(), **self._options)

    @cached_property
    def family(self) -> Family:
        kind = self.config.model_type
        return FAMILIES[kind]() if kind in FAMILIES else Family()

    @cached_property
    def padding_free(self) -> bool:  # type: ignore[override]
        return self.config.model_type in PADDING_FREE

    @property
    def image_only(self) -> tuple[Component, ...]:  # type: ignore[override]
        return self.family.image_only

    def configured(self) -> PretrainedConfig:
        return self.config

    def load_processor(self) -> ProcessorMixin:
        if self.projector_weights is not None:
            projector_file(self.projector_weights)  # told before any weight is read
        path = self._path() if self._processor_path is None else resolved(self._processor_path)
        processor = self.family.load_processor(path, self.config, **self._options)
        if self.image_fit == "pad":
            pad_to_square(processor, self.config, self.checkpoint)
        if self.template is None and not processor.chat_template and self.family.template is not None:
            self.template = self.family.template
        return processor

    def load_model(self) -> PreTrainedModel:
        if self.random_weights:
            model = AutoModelForImageTextToText.from_config(self.config, dtype=self.dtype)
        else:
            own_code = self._options["trust_remote_code"]
            path, dtype = self._path(), getattr(torch, self.dtype)
            pieces = None if own_code else opened(path, self.config, dtype, revision=self.revision)
            model = pieces or AutoModelForImageTextToText.from_pretrained(path, dtype=dtype, **self._options)
        self.family.prepare(model)
        if self.projector_weights is not None:
            names = {name for name, component in self.component_of(model).items() if component == "projector"}
            put_projector(model, names, self.projector_weights)
        return model

    def modules_of(self, model: PreTrainedModel) -> dict[Component, list[str]]:
        """Found in the model, not told (:func:`vlsafe.models.backbones.anatomy.anatomy`). A checkpoint whose parts
        cannot be told apart needs a subclass that overrides this."""
        return anatomy(model)

    def with_blank_image(
        self, model: PreTrainedModel, inputs: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], Tensor | float]:
        return self.family.with_blank_image(inputs, self.blank_features(model))

    def picture_features(self, model: PreTrainedModel, pictures: dict[str, Tensor]) -> list[Tensor]:
        return self.family.image_features(model, pictures)

    def inferred(self) -> list[str]:
        """One line each on what was found in the checkpoint: family, parts, processor, template. Reads no weights."""
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(self.config)
        return [*super().inferred(), *self._found(model)]

    def _found(self, model: PreTrainedModel) -> list[str]:
        known = "with code of its own" if self.config.model_type in FAMILIES else "no code of its own"
        parts = [f"{component}: {', '.join(paths)}" for component, paths in self.modules_of(model).items()]
        return [f"family: {self.config.model_type} ({type(model).__name__}), {known}", *parts]

    def _path(self) -> str:
        path = resolved(self.checkpoint)
        _refuse_adapter(Path(path))
        return path


def _refuse_adapter(folder: Path) -> None:
    """Transformers would load the base that the adapter names, or say that there is no config.json."""
    told = folder / "adapter_config.json"
    if not told.is_file() or (folder / "config.json").is_file():
        return
    base = json.loads(told.read_text(encoding="utf-8")).get("base_model_name_or_path")
    raise ConfigError(
        f"{folder} is an adapter, not a whole model; its base is {base or 'a model composed of parts'}. To measure it, "
        f"`vlsafe evaluate --model {base or 'BASE'} --adapter {folder}`; to train or load it, take the merged model: "
        "`model/` beside it in its run directory, or what `vlsafe export CHECKPOINT --out DIR --merge` writes"
    )
