"""ComposedVLLM: any vision encoder of the table and any causal LM, joined as a stock Hugging Face LLaVA model."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import torch
from tokenizers import AddedToken
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from vlsafe.data.tokenizers import load_tokenizer
from vlsafe.errors import ConfigError
from vlsafe.fetch.paths import resolved
from vlsafe.models.backbones.base import Attention, Backbone, Component
from vlsafe.models.backbones.pieces import opened
from vlsafe.models.encoders import Weights, vision_encoder_of
from vlsafe.models.encoders.base import ImageFit, VisionEncoder
from vlsafe.models.encoders.fused import PatchFeatures
from vlsafe.models.projector_weights import PREFIX, projector_file, put_projector
from vlsafe.models.projectors import PROJECTORS
from vlsafe.strategies.filling import StandIn, cast, read_now

IMAGE_TOKEN = "<image>"
VisionTokens = Literal["patches", "all"]


class ComposedVLLM(Backbone):
    """Assembles a VLLM from parts. It saves as ``LlavaForConditionalGeneration``, loadable without vlsafe where its
    encoder is one of transformers' own.

    Args:
        vision_encoder: name in the encoder table, a class path of your own, or several of them joined by ``+``, see
            :func:`vlsafe.models.encoders.vision_encoder_of`.
        language_model: directory, hub name or ``cache:NAME`` of a causal LM; a mapping ``{model_type: ..., tokenizer:
            ..., **config}`` builds random weights.
        vision_weights: the encoder's weights, or a mapping of config fields for random ones; None takes its default.
            For several encoders a list.
        projector: name in the projector table.
        image_fit: how a picture becomes a square, see :meth:`VisionEncoder.image_processor`.
        image_size: side of the square in pixels, for an encoder that takes any; fewer pixels give fewer tokens.
        vision_tokens: ``patches`` leaves out class token and registers, ``all`` keeps them as picture tokens. Leaving
            out registers is more than LLaVA's class can do, so such a checkpoint needs vlsafe to load.
        projector_seed: seed of the projector's random weights.
        projector_weights: the projector's weights instead: a folder that ``vlsafe convert mm_projector.bin`` or the
            export of an adapter wrote, or the ``projector.safetensors`` in it.
    """

    padding_free = True

    def __init__(
        self,
        vision_encoder: str,
        language_model: str | dict[str, Any],
        vision_weights: Weights | list[Weights] = None,
        projector: str = "mlp2x_gelu",
        image_fit: ImageFit = "pad",
        image_size: int | None = None,
        vision_tokens: VisionTokens = "patches",
        projector_seed: int = 0,
        projector_weights: str | None = None,
        template: str | None = "chatml",
        system_prompt: str | None = None,
        attention: Attention = "auto",
        dtype: Any = "float32",
    ) -> None:
        super().__init__(template, system_prompt, attention, dtype)
        self.language_model = language_model
        self.projector = PROJECTORS[projector]
        self.projector_weights = projector_weights
        self._kind = projector
        self.image_fit = image_fit
        self.vision_tokens = vision_tokens
        self.projector_seed = projector_seed
        self._named = vision_encoder_of(vision_encoder, vision_weights, image_size)

    @cached_property
    def encoder(self) -> VisionEncoder:
        """The encoder as the projector reads it."""
        beyond_llava = self.vision_tokens == "patches" and self._named.extra_tokens > 1
        return PatchFeatures([self._named]) if beyond_llava else self._named

    def configured(self) -> PretrainedConfig:
        """The language model's."""
        if isinstance(self.language_model, str):
            return AutoConfig.from_pretrained(resolved(self.language_model)).get_text_config()
        fields = {name: v for name, v in self.language_model.items() if name not in ("model_type", "tokenizer")}
        return AutoConfig.for_model(self.language_model["model_type"], **fields)

    def load_processor(self) -> ProcessorMixin:
        if self.projector_weights is not None:
            projector_file(self.projector_weights)  # told before any weight is read
        tokenizer, own_template = self._tokenizer()
        tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, special=True)])  # beside its own special tokens, not for them
        return LlavaProcessor(
            image_processor=self.encoder.image_processor(self.image_fit),
            tokenizer=tokenizer,
            patch_size=self.encoder.config.patch_size,
            vision_feature_select_strategy=self._select(),
            num_additional_image_tokens=self.encoder.extra_tokens,
            chat_template=own_template,  # unless ours is asked for, see Backbone.processor
        )

    def load_model(self) -> PreTrainedModel:
        language = self._load_language()
        text = language.config.get_text_config()
        _refuse_head_arithmetic(text)
        tokenizer = self.processor.tokenizer
        if len(tokenizer) > language.get_input_embeddings().num_embeddings:
            read_now(language, language.get_input_embeddings(), language.get_output_embeddings())
            language.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        vision = self.encoder.load()
        config = LlavaConfig(
            vision_config=vision.config,
            text_config=text,
            image_token_id=self.processor.image_token_id,
            **self._projector_fields(),
            vision_feature_layer=self.encoder.feature_layer,
            vision_feature_select_strategy=self._select(),
            image_seq_length=self._image_tokens(),
            tie_word_embeddings=text.tie_word_embeddings,
        )
        model = _assembled(config, vision, language)
        self._start_projector(model, language)
        model.generation_config = language.generation_config
        cast(model, getattr(torch, self.dtype))
        return model

    def modules_of(self, model: PreTrainedModel) -> dict[Component, list[str]]:
        return {
            "vision": ["model.vision_tower"],
            "projector": ["model.multi_modal_projector"],
            "language": ["model.language_model", "lm_head"],
        }

    def _select(self) -> Literal["default", "full"]:
        """LLaVA's word for leaving out the first token, or none."""
        return "default" if self.vision_tokens == "patches" and self.encoder.extra_tokens else "full"

    def _image_tokens(self) -> int:
        return self.encoder.grid**2 + (self.encoder.extra_tokens if self.vision_tokens == "all" else 0)

    def _projector_fields(self) -> dict[str, Any]:
        """What the LLaVA config says of the projector."""
        return {"projector_hidden_act": self.projector.activation}

    def _start_projector(self, model: LlavaForConditionalGeneration, language: PreTrainedModel) -> None:
        """On the CPU, so that it is the same wherever the model is; drawn by a generator of its own."""
        projector, words = model.model.multi_modal_projector, language.get_input_embeddings().weight
        projector.to_empty(device="cpu")
        if self.projector_weights is not None:
            names = {name for name, _ in model.named_parameters() if name.startswith(PREFIX)}
            put_projector(model, names, self.projector_weights, self._kind)
        else:
            generator = torch.Generator("cpu").manual_seed(self.projector_seed)
            with torch.device("cpu"):
                self.projector.initialise(projector, _spread(words), generator)
        projector.to(words.device)

    def _tokenizer(self) -> tuple[PreTrainedTokenizerBase, str | None]:
        """The language model's tokenizer and its own chat template, if any."""
        tokenizer = load_tokenizer(self._tokenizer_path())
        return tokenizer, tokenizer.chat_template

    def _tokenizer_path(self) -> str:
        if isinstance(self.language_model, str):
            return resolved(self.language_model)
        if "tokenizer" not in self.language_model:
            raise ConfigError("language_model is a mapping without 'tokenizer': say where its tokenizer is")
        return resolved(self.language_model["tokenizer"])

    def _load_language(self) -> PreTrainedModel:
        if isinstance(self.language_model, str):
            path = resolved(self.language_model)
            pieces = opened(path, AutoConfig.from_pretrained(path), torch.float32, AutoModelForCausalLM)
            return pieces or AutoModelForCausalLM.from_pretrained(path, dtype="float32")
        return AutoModelForCausalLM.from_config(self.configured())


def _assembled(
    config: LlavaConfig, vision: PreTrainedModel, language: PreTrainedModel
) -> LlavaForConditionalGeneration:
    """The LLaVA shell around the very modules of the parts, so that no weight is held twice; its projector is empty."""
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    model.model.vision_tower = vision
    model.model.language_model = language.get_decoder()
    model.lm_head = language.get_output_embeddings()
    return model


def _spread(words: nn.Parameter) -> float:
    """Standard deviation of the language model's input embeddings. words: [vocabulary, width]."""
    read = words.rows(0, None) if isinstance(words, StandIn) else words.detach()
    return read.to("cpu", torch.float32).std().item()


def _refuse_head_arithmetic(config: PretrainedConfig) -> None:
    """LLaVA's head is a plain linear layer; a language model that changes its logits afterwards would lose that."""
    fields = config.to_dict()
    for name in ("final_logit_softcapping", "logits_scaling", "logit_scale"):
        if fields.get(name) not in (None, 1, 1.0):
            raise ConfigError(
                f"{config.model_type} changes its logits by {name}={fields[name]}, which a LLaVA head would drop; "
                "choose another language model, or subclass Backbone for this one"
            )
