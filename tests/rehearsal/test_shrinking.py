"""Small checkpoints keep what is not a size, load as any other, and cover every family of the documents."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.recipes import ROOT
from vlsafe import PretrainedVLLM
from vlsafe.errors import ConfigError
from vlsafe.models.encoders import ENCODERS
from vlsafe.rehearsal.backbones import shrink
from vlsafe.rehearsal.draft import Draft
from vlsafe.rehearsal.published import SHAPES, folder_of, shape_of
from vlsafe.rehearsal.shrinking import small_encoder, small_language_model, small_vlm

FAMILIES = sorted(path.name for path in SHAPES.iterdir() if path.is_dir() and path.name != "llama")


def larger(shape: Path, folder: Path) -> dict[str, Any]:
    """A checkpoint as the hub has it, without weights: three times as many layers, and a vocabulary of its own."""
    shutil.copytree(shape, folder)
    config = json.loads((folder / "config.json").read_text())
    text = config["text_config"]
    text["vocab_size"] += 24
    text["num_hidden_layers"] *= 3
    text["rms_norm_eps"] = 3e-5
    if "layer_types" in text:
        text["layer_types"] *= 3
    (folder / "config.json").write_text(json.dumps(config))
    return config


@pytest.mark.parametrize("family", FAMILIES)
def test_a_small_checkpoint_is_one_of_its_family(family: str, tmp_path: Path) -> None:
    real = larger(SHAPES / family, tmp_path / "real")
    small_vlm(tmp_path / "real", tmp_path / "small")
    backbone = PretrainedVLLM(str(tmp_path / "small"), dtype="float32", attention="sdpa")
    model = backbone.load_model()
    text = model.config.text_config
    shape = json.loads((SHAPES / family / "config.json").read_text())["text_config"]
    assert model.config.model_type == family
    assert text.num_hidden_layers == shape["num_hidden_layers"] and text.hidden_size == 16
    assert text.vocab_size == real["text_config"]["vocab_size"]
    assert getattr(text, "rms_norm_eps", 3e-5) == 3e-5
    assert len(list((tmp_path / "small").glob("model*.safetensors"))) >= 1
    assert backbone.processor.tokenizer.get_vocab()
    assert all(part.isfinite().all() for part in backbone.blank_features(model))


def test_every_checkpoint_that_the_documents_name_has_a_shape() -> None:
    page = (ROOT / "docs" / "families.md").read_text().partition("The official names")[2].partition("The tests use")[0]
    named = re.findall(r"`([\w.-]+/[\w.-]+)`", page)
    assert len(named) == 12
    shapes = [shape_of(name, "none") for name in named]
    assert all((shape / "config.json").is_file() for shape in shapes)
    assert {shape.name for shape in shapes} | {"minigpt_v2", "qwen2_vl"} == set(FAMILIES)


def test_what_is_not_known_is_not_guessed() -> None:
    assert folder_of("someone/some-model") is None and folder_of("./not-here") is folder_of("../not-here") is None
    with pytest.raises(ConfigError, match=r"its family is not known here. Bring the small files: `hf download"):
        shape_of("someone/some-model", "llava")
    assert shape_of("runs/stage1/model", "llava").name == "llava"
    assert shape_of("cache:llava-1.5-7b", "none").name == "llava"


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gemma2", "phi3"])
def test_language_models_are_narrowed(kind: str, tmp_path: Path) -> None:
    config = AutoConfig.for_model(kind, vocab_size=102, pad_token_id=0)
    (tmp_path / "real").mkdir()
    shutil.copyfile(SHAPES / "llama" / "tokenizer.json", tmp_path / "real" / "tokenizer.json")
    config.save_pretrained(tmp_path / "real")
    small_language_model(tmp_path / "real", tmp_path / "small")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "small")
    assert model.config.model_type == kind and model.num_parameters() < 30_000
    assert (tmp_path / "small" / "tokenizer.json").is_file()
    assert torch.isfinite(model(torch.arange(8)[None]).logits).all()


@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "efficientnet_lite0"])
def test_encoders_are_narrowed_and_keep_their_pictures(name: str, tmp_path: Path) -> None:
    kind = ENCODERS[name]
    fields = {"image_size": 56, "patch_size": 14, "num_hidden_layers": 5, "hidden_size": 48, "num_attention_heads": 4}
    kind.config_class(**fields).save_pretrained(tmp_path / "real")
    small_encoder(kind("x"), tmp_path / "real", tmp_path / "small")
    small = kind(str(tmp_path / "small"))
    assert (small.config.image_size, small.config.patch_size, small.grid) == (56, 14, 4)
    assert (small.config.num_hidden_layers, small.config.hidden_size) == (3, 16)
    small.load()
    small_encoder(kind("x"), None, tmp_path / "shape")
    assert kind(str(tmp_path / "shape")).grid == 2


@pytest.mark.parametrize(("name", "missing"), [("/data/llava-typo", True), ("llava-hf/llava-1.5-7b-hf", False)])
def test_a_folder_that_is_not_there_is_named_as_not_rehearsed(name: str, missing: bool, tmp_path: Path) -> None:
    backbone = {"class_path": "vlsafe.PretrainedVLLM", "init_args": {"checkpoint": name, "revision": None}}
    draft = Draft({"model": {"init_args": {"backbone": backbone}}})
    shrink(draft, tmp_path, {})
    assert (draft.not_rehearsed == [f"{name} (fit needs it there: check the path, or make it first)"]) == missing
    assert missing or not draft.not_rehearsed
