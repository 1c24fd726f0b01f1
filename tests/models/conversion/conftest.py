"""The tiny models that the original layouts are written from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from originals import CLIP_SIZES, EVA, GROWN, LLAMA, ROWS, rescaled
from transformers import (
    Blip2VisionConfig,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from vlsafe.models.minigpt import MiniGPTv2Config, MiniGPTv2ForConditionalGeneration


@pytest.fixture(scope="module")
def llava() -> LlavaForConditionalGeneration:
    torch.manual_seed(0)
    text = LlamaConfig(**LLAMA | {"vocab_size": GROWN})
    vision = CLIPVisionConfig(**CLIP_SIZES)
    return rescaled(LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text)))


@pytest.fixture
def clip(llava: LlavaForConditionalGeneration, tmp_path: Path) -> Path:
    """A whole CLIP, whose vision half is the original's encoder."""
    text = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=10)
    model = CLIPModel(CLIPConfig(vision_config=CLIP_SIZES, text_config=text, projection_dim=16))
    model.vision_model.load_state_dict(llava.model.vision_tower.state_dict())
    folder = tmp_path / "clip"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def minigpt() -> MiniGPTv2ForConditionalGeneration:
    torch.manual_seed(0)
    config = MiniGPTv2Config(
        vision_config=Blip2VisionConfig(**EVA),
        text_config=LlamaConfig(**LLAMA | {"vocab_size": GROWN}),
        image_token_id=ROWS,
    )
    model = rescaled(MiniGPTv2ForConditionalGeneration(config))
    with torch.no_grad():
        model.model.vision_tower.post_layernorm.weight.fill_(1)
        model.model.vision_tower.post_layernorm.bias.zero_()
        for block in model.model.vision_tower.encoder.layers:
            block.self_attn.qkv.bias[16:32] = 0  # EVA's keys have no bias
    return model
