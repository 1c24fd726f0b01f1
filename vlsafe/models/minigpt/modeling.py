"""MiniGPT-v2: EVA ViT-g, four patches merged into one token, one linear layer, Llama-2.

The shape of the classes, and the names of their modules, are those of transformers' LLaVA, so that whatever asks a
LLaVA model for its parts finds them here too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, Blip2VisionModel, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.llava.modeling_llava import LlavaCausalLMOutputWithPast, LlavaModelOutputWithPast

from vlsafe.models.minigpt.configuration import MiniGPTv2Config


class MiniGPTv2PreTrainedModel(PreTrainedModel):
    config_class = MiniGPTv2Config
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["Blip2EncoderLayer", "LlamaDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_attention_backend = True


class MiniGPTv2Model(MiniGPTv2PreTrainedModel):
    """Encoder, projector and decoder, without the head."""

    def __init__(self, config: MiniGPTv2Config) -> None:
        super().__init__(config)
        width = config.vision_config.hidden_size
        self.vision_tower = Blip2VisionModel._from_config(config.vision_config)
        self.vision_tower.post_layernorm = nn.LayerNorm(width, eps=config.feature_norm_eps)
        self.multi_modal_projector = nn.Linear(width * config.merged_tokens, config.text_config.hidden_size)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def get_image_features(self, pixel_values: Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """``pixel_values`` [pictures, 3, side, side] -> ``pooler_output``: a picture's tokens [256, width of the
        language model] each; ``last_hidden_state``: the patches [pictures, 1024, 1408] they are made of."""
        patches = self.vision_tower(pixel_values.to(self.vision_tower.dtype)).last_hidden_state[:, 1:]
        merged = patches.reshape(len(patches), self.config.image_seq_length, -1)
        return BaseModelOutputWithPooling(
            last_hidden_state=patches, pooler_output=list(self.multi_modal_projector(merged))
        )

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **kwargs: Any,
    ) -> LlavaModelOutputWithPast:
        """``input_ids`` [rows, length] hold as many picture tokens as ``pixel_values`` (or the features under ``image``
        in ``mm_encoder_outputs``) give features; raises ValueError when they do not."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give input_ids or inputs_embeds, one of them")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        shown = (mm_encoder_outputs or {}).get("image")
        if shown is None and pixel_values is not None:
            shown = self.get_image_features(pixel_values)
        features = None
        if shown is not None:
            features = torch.cat(list(shown.pooler_output)).to(inputs_embeds.device, inputs_embeds.dtype)
            inputs_embeds = inputs_embeds.masked_scatter(self._places(input_ids, inputs_embeds, features), features)
        outputs = self.language_model(inputs_embeds=inputs_embeds, attention_mask=attention_mask, **kwargs)
        return LlavaModelOutputWithPast(image_hidden_states=features, **outputs)

    def _places(self, input_ids: Tensor | None, inputs_embeds: Tensor, features: Tensor) -> Tensor:
        """Mask [rows, length, 1] of the picture tokens. ``features``: [tokens of all pictures, width]."""
        if input_ids is None:
            picture = self.get_input_embeddings().weight[self.config.image_token_id]
            places = (inputs_embeds == picture).all(-1)
        else:
            places = input_ids == self.config.image_token_id
        if int(places.sum()) != len(features):
            raise ValueError(
                f"the text holds {int(places.sum())} picture tokens, the pictures give {len(features)} features"
            )
        return places[..., None]


class MiniGPTv2ForConditionalGeneration(MiniGPTv2PreTrainedModel, GenerationMixin):
    """The model that answers: :class:`MiniGPTv2Model` and the language model's head."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}

    def __init__(self, config: MiniGPTv2Config) -> None:
        super().__init__(config)
        self.model = MiniGPTv2Model(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def get_image_features(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        return self.model.get_image_features(pixel_values, **kwargs)

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **kwargs: Any,
    ) -> LlavaCausalLMOutputWithPast:
        """``logits`` [rows, length, vocabulary], of the last ``logits_to_keep`` positions or of those it lists;
        ``loss`` where ``labels`` [rows, length] are given, -100 for what is not supervised."""
        outputs = self.model(input_ids, pixel_values, attention_mask, inputs_embeds, mm_encoder_outputs, **kwargs)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.text_config.vocab_size, **kwargs)
        return LlavaCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=outputs.image_hidden_states,
        )
