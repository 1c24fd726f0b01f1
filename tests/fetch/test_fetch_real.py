"""The assets of ``small`` as they really are; each test skips where its asset is not in the cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlsafe.errors import DataError
from vlsafe.fetch import manifest
from vlsafe.fetch.catalogue import CATALOGUE, GROUPS
from vlsafe.fetch.locate import default_cache, located

pytestmark = pytest.mark.real


def folder_of(name: str) -> Path:
    if not (default_cache() / name).exists():
        pytest.skip(f"{name} is not in the cache; run `python -m vlsafe fetch {name}`")
    return located(name)


@pytest.mark.parametrize("name", GROUPS["small"])
def test_every_byte_is_as_fetched(name: str) -> None:
    assert manifest.damage(CATALOGUE[name], folder_of(name), thorough=True) == ""


def test_smollm2_loads_in_full_precision_and_answers() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = folder_of("smollm2-135m-instruct")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.float32
    assert sum(weight.numel() for weight in model.parameters()) == 134_515_008
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**prompt, max_new_tokens=8, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)


def test_efficientnet_loads_and_tells_pictures_apart() -> None:
    import torch

    from vlsafe.models.encoders.efficientnet_lite0 import EfficientNetLite0Model

    model = EfficientNetLite0Model.from_pretrained(folder_of("efficientnet-lite0")).eval()
    stripes = (torch.arange(224) % 16 < 8).float().expand(1, 3, 224, 224) * 2 - 1
    with torch.no_grad():
        flat, striped = (model(pixel_values=x).last_hidden_state for x in (torch.zeros(1, 3, 224, 224), stripes))
    assert flat.shape == (1, 49, 1280)
    assert (flat - striped).abs().mean() > 0.05


def test_easy_vqa_has_the_published_counts() -> None:
    folder = folder_of("easy-vqa")
    questions = {split: json.loads((folder / split / "questions.json").read_text()) for split in ("train", "test")}
    assert {split: len(rows) for split, rows in questions.items()} == {"train": 38_575, "test": 9_673}
    assert {split: len(list((folder / split / "images").glob("*.png"))) for split in questions} == {
        "train": 4000,
        "test": 1000,
    }
    answers = (folder / "answers.txt").read_text().split()
    assert len(answers) == 13 and {answer for _, answer, _ in questions["test"]} == set(answers)


def test_no_asset_is_left_half_done() -> None:
    for name in GROUPS["small"]:
        try:
            located(name)
        except DataError as error:
            pytest.skip(str(error))
        assert not (default_cache() / f"{name}.partial").exists()
