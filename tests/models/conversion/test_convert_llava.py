"""An original LLaVA becomes a Hugging Face folder with the same logits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from originals import GROWN, ROWS, inputs_for, logits, original_llava, write_llava
from safetensors.torch import load_file
from tiny import talk
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration

from vlsafe.__main__ import main
from vlsafe.conversation import ImageRef, user
from vlsafe.data.encoding import Encoding
from vlsafe.errors import ConfigError, DataError
from vlsafe.models.conversion.llava import convert_llava


@pytest.mark.parametrize("safe", [False, True], ids=["bin", "safetensors"])
def test_a_llava_gives_the_logits_of_the_model_it_came_from(
    safe: bool, llava: LlavaForConditionalGeneration, clip: Path, picture: ImageRef, tmp_path: Path
) -> None:
    source = write_llava(tmp_path / "original", original_llava(llava), safe=safe)
    convert_llava(source, tmp_path / "out", vision_tower=clip)
    again, report = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert type(again) is LlavaForConditionalGeneration
    assert not any(report.values()), report
    inputs = inputs_for(tmp_path / "out", picture)
    llava.config.image_token_index = again.config.image_token_index
    assert torch.equal(logits(again, inputs), logits(llava, inputs))
    assert again.config.image_token_id == ROWS
    assert again.config.text_config.vocab_size == len(again.lm_head.weight) == GROWN
    assert (again.config.vision_feature_layer, again.config.vision_feature_select_strategy) == (-2, "default")


def test_the_names_are_those_of_published_hugging_face_checkpoints(
    llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path
) -> None:
    convert_llava(write_llava(tmp_path / "original", original_llava(llava)), tmp_path / "out", vision_tower=clip)
    names = set(load_file(tmp_path / "out" / "model.safetensors"))
    assert {
        "language_model.lm_head.weight",
        "language_model.model.layers.0.self_attn.q_proj.weight",
        "multi_modal_projector.linear_1.bias",
        "vision_tower.vision_model.embeddings.class_embedding",
        "vision_tower.vision_model.pre_layrnorm.weight",
    } <= names
    assert len(names) == len(llava.state_dict())


def test_new_words_are_never_the_likeliest(llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path) -> None:
    convert_llava(write_llava(tmp_path / "original", original_llava(llava)), tmp_path / "out", vision_tower=clip)
    weights = load_file(tmp_path / "out" / "model.safetensors")
    for name in ("language_model.lm_head.weight", "language_model.model.embed_tokens.weight"):
        old, new = weights[name][:ROWS], weights[name][ROWS:]
        assert torch.allclose(new, old.mean(0).expand(GROWN - ROWS, -1), atol=1e-6)


def test_processor_and_template_are_written(
    llava: LlavaForConditionalGeneration, clip: Path, picture: ImageRef, tmp_path: Path
) -> None:
    convert_llava(write_llava(tmp_path / "original", original_llava(llava)), tmp_path / "out", vision_tower=clip)
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    prompt = Encoding(processor).prompt(talk(user(picture, "colour?")))
    assert prompt.text == (
        "<s>A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: <image>\ncolour? ASSISTANT:"
    )
    assert (prompt.input_ids == ROWS).sum() == 4
    assert processor.tokenizer.pad_token == "<pad>"
    assert processor.image_processor.do_pad
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (generation["eos_token_id"], generation["pad_token_id"]) == (2, processor.tokenizer.pad_token_id)


def test_an_encoder_that_the_checkpoint_holds_wins_over_the_folder(
    llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path
) -> None:
    """LLaVA that was tuned with its encoder has another one than OpenAI's."""
    weights = original_llava(llava)
    key = "model.vision_tower.vision_tower.vision_model.pre_layrnorm.weight"
    weights[key] = weights[key] + 1
    convert_llava(write_llava(tmp_path / "with", weights), tmp_path / "out", vision_tower=clip)
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(written["vision_tower.vision_model.pre_layrnorm.weight"], weights[key])


def test_an_encoder_that_it_does_not_hold_comes_from_the_folder(
    llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path
) -> None:
    weights = {k: v for k, v in original_llava(llava).items() if "vision_tower" not in k}
    source = write_llava(tmp_path / "original", weights)
    convert_llava(source, tmp_path / "out", vision_tower=clip)
    written = load_file(tmp_path / "out" / "model.safetensors")
    for name, tensor in llava.model.vision_tower.state_dict().items():
        assert torch.equal(written[f"vision_tower.vision_model.{name}"], tensor)


def test_a_linear_projector_gives_the_same_features(
    llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path
) -> None:
    weights = original_llava(llava)
    for part in ("weight", "bias"):
        weights[f"model.mm_projector.{part}"] = weights.pop(f"model.mm_projector.0.{part}")
        del weights[f"model.mm_projector.2.{part}"]
    source = write_llava(tmp_path / "original", weights, mm_projector_type="linear")
    convert_llava(source, tmp_path / "out", vision_tower=clip)
    project = AutoModelForImageTextToText.from_pretrained(tmp_path / "out").model.multi_modal_projector
    features = torch.randn(3, 16)
    expected = torch.nn.functional.linear(
        features, weights["model.mm_projector.weight"], weights["model.mm_projector.bias"]
    )
    assert torch.equal(project(features), expected)


def test_half_precision_stays_and_a_full_precision_encoder_follows(
    llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path
) -> None:
    weights = {k: v.half() for k, v in original_llava(llava).items() if "vision_tower" not in k}
    convert_llava(write_llava(tmp_path / "original", weights), tmp_path / "out", vision_tower=clip)
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in written.values()} == {torch.float16}
    name = "language_model.model.layers.1.mlp.up_proj.weight"
    assert torch.equal(written[name], weights["model.layers.1.mlp.up_proj.weight"])
    assert AutoModelForImageTextToText.from_pretrained(tmp_path / "out").dtype == torch.float16


def test_known_encoders_need_no_folder_when_their_weights_are_there(
    llava: LlavaForConditionalGeneration, tmp_path: Path
) -> None:
    """The sizes are those of the named encoder, so weights of another one do not fit."""
    source = write_llava(tmp_path / "original", original_llava(llava))
    with pytest.raises(
        DataError, match=r"class_embedding in pytorch_model-.* gives \[16\], the config asks for \[1024\]"
    ):
        convert_llava(source, tmp_path / "out")
    source = write_llava(tmp_path / "other", original_llava(llava), mm_vision_tower="my/clip")
    with pytest.raises(ConfigError, match=r"'my/clip' has sizes unknown here; name its folder with --vision-tower"):
        convert_llava(source, tmp_path / "out")


def test_the_verb_converts_and_tells_what_it_did(
    llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_llava(tmp_path / "original", original_llava(llava))
    for number, place in enumerate(([str(tmp_path / "out0")], ["--out", str(tmp_path / "out1")])):
        assert main(["convert", str(source), *place, "--vision-tower", str(clip)]) == 0
        told = capsys.readouterr().out
        assert (tmp_path / f"out{number}" / "config.json").is_file()
        assert told.startswith(f"{tmp_path / f'out{number}'}\n")
        assert f"{len(llava.state_dict())}, every key matched" in told
        assert "102 -> 128 rows" in told and "inv_freq" in told and "in float32" in told


def test_the_verb_says_what_is_wrong_with_the_request(
    llava: LlavaForConditionalGeneration, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_llava(tmp_path / "original", original_llava(llava), pieces=1)
    out = str(tmp_path / "out")

    def refused(*argv: str) -> str:
        assert main(["convert", *argv]) == 2
        return capsys.readouterr().err

    assert "nowhere: no such file or folder" in refused(str(tmp_path / "nowhere"), out)
    assert "name its other parts with --base and --vision-tower" in refused(str(source / "config.json"), out)
    assert "--lora-alpha is for MiniGPT-v2" in refused(str(source), out, "--lora-alpha", "16")
    with pytest.raises(SystemExit):
        main(["convert", str(source)])
    assert "name the directory to write, once: vlsafe convert SOURCE OUT, or --out OUT" in capsys.readouterr().err
