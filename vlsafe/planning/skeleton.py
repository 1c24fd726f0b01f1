"""A backbone's model without weights: every parameter has its shape and precision, and no storage (``meta`` device)."""

from __future__ import annotations

from functools import singledispatch

import torch
from transformers import AutoModelForImageTextToText, LlavaConfig, PreTrainedModel

from vlsafe.errors import ConfigError
from vlsafe.fetch.paths import resolved
from vlsafe.models.backbones.base import Backbone
from vlsafe.models.backbones.composed import ComposedVLLM
from vlsafe.models.backbones.pretrained import PretrainedVLLM
from vlsafe.models.minigpt import MiniGPTv2Config
from vlsafe.models.minigpt.backbone import MiniGPTv2
from vlsafe.strategies.filling import cast


@singledispatch
def skeleton(backbone: Backbone) -> PreTrainedModel:
    """The model that ``backbone.load_model()`` would return, on the ``meta`` device; reads configs and no weights.

    A backbone of your own that builds its model from a config needs nothing; one that reads weights registers a
    function of its own with ``skeleton.register``. Raises ConfigError when neither is so.
    """
    try:
        with torch.device("meta"):
            return backbone.load_model()
    except (RuntimeError, NotImplementedError) as error:
        name = type(backbone).__name__
        raise ConfigError(
            f"{name}.load_model needs its weights ({error}), and a plan is made without any; register a function that "
            f"builds its model from configs: @vlsafe.planning.skeleton.skeleton.register for {name}"
        ) from error


@skeleton.register
def _pretrained(backbone: PretrainedVLLM) -> PreTrainedModel:
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(backbone.config)
    backbone.family.prepare(model)
    return _as_trained(model, backbone)


@skeleton.register
def _minigpt(backbone: MiniGPTv2) -> PreTrainedModel:
    config = MiniGPTv2Config.from_pretrained(resolved(backbone.checkpoint))
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    return _as_trained(model, backbone)


@skeleton.register
def _composed(backbone: ComposedVLLM) -> PreTrainedModel:
    text = backbone.configured()
    text.vocab_size = max(text.vocab_size, len(backbone.processor.tokenizer))
    config = LlavaConfig(
        vision_config=backbone.encoder.config,
        text_config=text,
        image_token_id=backbone.processor.image_token_id,
        projector_hidden_act=backbone.projector.activation,
        vision_feature_layer=backbone.encoder.feature_layer,
        vision_feature_select_strategy=backbone.processor.vision_feature_select_strategy,
        tie_word_embeddings=text.tie_word_embeddings,
    )
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    return _as_trained(model, backbone)


def _as_trained(model: PreTrainedModel, backbone: Backbone) -> PreTrainedModel:
    """In the backbone's precision, with an attention that holds what flash kernels hold: no table of all pairs."""
    model.set_attn_implementation({"text_config": "sdpa"})
    cast(model, getattr(torch, backbone.dtype))
    return model
