"""MiniGPT-v2's parts become one Hugging Face folder with the same logits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from originals import EVA, GROWN, ROWS, inputs_for, logits, lora_of, minigpt_files
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, Blip2VisionConfig

from vlsafe.conversation import ImageRef
from vlsafe.errors import ConfigError, DataError
from vlsafe.models.conversion.minigpt import convert_minigpt
from vlsafe.models.minigpt import MiniGPTv2ForConditionalGeneration


def test_minigpt_gives_the_logits_of_the_model_it_came_from(
    minigpt: MiniGPTv2ForConditionalGeneration, picture: ImageRef, tmp_path: Path
) -> None:
    checkpoint, llama, eva, _ = minigpt_files(minigpt, tmp_path)
    done = convert_minigpt(checkpoint, tmp_path / "out", llama, eva, vision=Blip2VisionConfig(**EVA))
    again, report = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values()), report
    inputs = inputs_for(tmp_path / "out", picture)
    assert torch.equal(logits(again, inputs), logits(minigpt, inputs))
    assert (again.config.image_token_id, again.config.text_config.vocab_size) == (ROWS, GROWN)
    words = str(done)
    assert "as it starts: the checkpoint holds none" in words
    assert "no LoRA weights there" in words


@pytest.mark.parametrize("default", ["", ".default"])
def test_minigpts_lora_is_merged_with_the_alpha_of_its_config(
    default: str, minigpt: MiniGPTv2ForConditionalGeneration, tmp_path: Path
) -> None:
    checkpoint, llama, eva, language = minigpt_files(minigpt, tmp_path)
    content = torch.load(checkpoint, weights_only=True)
    pieces, products = lora_of(language, default)
    norm = {"ln_vision.weight": torch.full((16,), 2.0), "ln_vision.bias": torch.full((16,), 3.0)}
    content["model"] |= pieces | norm
    content["config"] = {"model": {"lora_alpha": 2, "arch": "minigpt_v2"}, "run": {"seed": 1}}
    torch.save(content, checkpoint)
    done = convert_minigpt(checkpoint, tmp_path / "out", llama, eva, vision=Blip2VisionConfig(**EVA))
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert len(products) == 4
    for key, product in products.items():
        expected = language[key] + 0.5 * product  # alpha 2 over rank 4
        assert torch.allclose(written[key.replace("model.", "model.language_model.", 1)], expected, atol=1e-6)
    assert "0.5" in done.facts["scale of LoRA"]
    assert done.facts["LoRA"] == "merged into 4 layers"
    assert (written["model.vision_tower.post_layernorm.weight"] == 2).all()
    assert (written["model.vision_tower.post_layernorm.bias"] == 3).all()


def test_the_alpha_is_never_guessed(minigpt: MiniGPTv2ForConditionalGeneration, tmp_path: Path) -> None:
    checkpoint, llama, eva, language = minigpt_files(minigpt, tmp_path)
    content = torch.load(checkpoint, weights_only=True)
    content["model"] |= lora_of(language)[0]
    torch.save(content, checkpoint)
    vision, out = Blip2VisionConfig(**EVA), tmp_path / "out"
    with pytest.raises(ConfigError, match=r"does not say the alpha of its LoRA weights; name it with --lora-alpha"):
        convert_minigpt(checkpoint, out, llama, eva, vision=vision)
    torch.save(content | {"config": {"model": {"lora_alpha": 16}}}, checkpoint)
    with pytest.raises(ConfigError, match=r"--lora-alpha is 32, .* was trained with 16; leave --lora-alpha out"):
        convert_minigpt(checkpoint, out, llama, eva, lora_alpha=32, vision=vision)
    done = convert_minigpt(checkpoint, out, llama, eva, lora_alpha=16, vision=vision)
    assert done.facts["scale of LoRA"] == "4"


def test_positions_are_stretched_to_a_larger_picture(
    minigpt: MiniGPTv2ForConditionalGeneration, tmp_path: Path
) -> None:
    """A 4 x 4 grid becomes 8 x 8: a plane that rises evenly stays one, and the class token's vector stays."""
    checkpoint, llama, eva, _ = minigpt_files(minigpt, tmp_path)
    weights = torch.load(eva, weights_only=True)
    rising = torch.arange(4.0).repeat(4)[:, None].expand(16, 16)  # grows from left to right
    weights["pos_embed"] = torch.cat([torch.full((1, 16), 9.0), rising])[None]
    torch.save(weights, eva)
    convert_minigpt(checkpoint, tmp_path / "out", llama, eva, vision=Blip2VisionConfig(**EVA | {"image_size": 32}))
    written = load_file(tmp_path / "out" / "model.safetensors")["model.vision_tower.embeddings.position_embedding"]
    assert written.shape == (1, 65, 16)
    assert (written[0, 0] == 9).all()
    grid = written[0, 1:, 0].reshape(8, 8)
    assert torch.allclose(grid, grid[0].expand(8, 8))
    assert torch.allclose(grid[0, 2:6], torch.tensor([0.75, 1.25, 1.75, 2.25]), atol=0.1)


def test_minigpt_keys_that_do_not_fit_are_in_one_error(
    minigpt: MiniGPTv2ForConditionalGeneration, tmp_path: Path
) -> None:
    checkpoint, llama, eva, _ = minigpt_files(minigpt, tmp_path)
    weights = torch.load(eva, weights_only=True)
    for key in ("blocks.0.attn.v_bias", "blocks.1.norm2.weight"):
        del weights[key]
    weights["rel_pos_bias"] = torch.zeros(1)
    torch.save(weights, eva)
    with pytest.raises(DataError) as caught:
        convert_minigpt(checkpoint, tmp_path / "out", llama, eva, vision=Blip2VisionConfig(**EVA))
    words = str(caught.value)
    assert "eva_vit_g.pth holds blocks.0.attn.q_bias without blocks.0.attn.v_bias" in words
    assert "nothing gives model.vision_tower.encoder.layers.1.layer_norm2.weight [16]" in words
    assert "unexpected: eva_vit_g.pth holds rel_pos_bias" in words
    assert not (tmp_path / "out").exists()
    torch.save({"model": {"x": torch.zeros(1)}}, checkpoint)
    with pytest.raises(DataError, match=r"holds no llama_proj.weight, so it is no checkpoint of MiniGPT-v2"):
        convert_minigpt(checkpoint, tmp_path / "out", llama, eva)
    (llama / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(DataError, match=r"model_type is 'gpt2'; MiniGPT-v2 was trained on Llama-2-chat"):
        convert_minigpt(checkpoint, tmp_path / "out", llama, eva)
