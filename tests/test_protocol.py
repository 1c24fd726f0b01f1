"""What a suite says of judge, template and image fit is used, unless a flag says otherwise, and either is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny import composed, save_tokenizer, seeded_model

from tests.tiny_run import vlguard_folder
from vlsafe.data.chat import chat_template
from vlsafe.evaluate import main
from vlsafe.evaluation.suites import suite_named
from vlsafe.fetch.paths import use_cache

SUITE = """
max_new_tokens = 4
judge = "keyword:vlguard"
template = "llava_v1"
image_fit = "pad"

[[benchmarks]]
benchmark = "vlguard"
path = "guard"
"""
HUMAN = "A chat between a curious human and an artificial intelligence assistant."
USER = "A chat between a curious user and an artificial intelligence assistant."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``llava`` opens answers by ``ASSISTANT:`` and cuts the centre out, as on the hub; ``chat`` is of another kind."""
    folder = tmp_path_factory.mktemp("protocol")
    tokenizer = save_tokenizer(folder / "tokenizer")
    for name, options in {"llava": dict(template="vicuna_v1", image_fit="crop"), "chat": {"image_fit": "crop"}}.items():
        backbone = composed(tokenizer, **options)
        seeded_model(backbone).save_pretrained(folder / name)
        backbone.processor.save_pretrained(folder / name)
    vlguard_folder(folder / "guard")
    for picture in (folder / "guard").rglob("*.png"):
        Image.open(picture).resize((24, 16)).save(picture)
    (folder / "suite.toml").write_text(SUITE)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path) -> Iterator[None]:
    use_cache(tmp_path / "cache")
    yield
    use_cache(None)


def measured(folder: Path, model: str, out: Path, *more: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row of responses.jsonl, and the report."""
    suite = ["--suite", str(folder / "suite.toml"), "--check-items", "0", "--dtype", "float32"]
    assert main(["--model", str(folder / model), *suite, "--out", str(out), *more]) == 0
    row = json.loads((out / "responses.jsonl").read_text().splitlines()[0])
    return row, json.loads((out / "report.json").read_text())


def test_llava_is_measured_as_the_suite_says(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row, report = measured(folder, "llava", tmp_path / "a")
    assert row["prompt"].startswith(f"<s>{HUMAN}") and row["model"]["image_fit"] == "pad"
    assert (row["decoding"]["max_new_tokens"], report["judge"]) == (4, "keyword:vlguard")
    (note,) = report["notes"]
    assert note.endswith("suite.toml: judge keyword:vlguard, template llava_v1, image fit pad")
    assert note in capsys.readouterr().out.replace("\n", "")


def test_flags_go_before_the_suite_and_are_told(folder: Path, tmp_path: Path) -> None:
    flags = ("--judge", "keyword:vlsafe", "--template", "vicuna_v1", "--image-fit", "checkpoint")
    row, report = measured(folder, "llava", tmp_path / "a", *flags, "--max-new-tokens", "2")
    assert row["prompt"].startswith(f"<s>{USER}") and row["model"]["image_fit"] == "crop"
    assert report["judge"] == "keyword:vlsafe" and row["decoding"]["max_new_tokens"] == 2
    (note,) = report["notes"]
    for words in (
        "judge keyword:vlsafe as --judge says, not the suite's keyword:vlguard",
        "2 new tokens as --max-new-tokens says, not 4",
        "template vicuna_v1 as --template says, not the suite's llava_v1",
        "image fit checkpoint as --image-fit says, not the suite's pad",
    ):
        assert words in note


def test_another_kind_of_model_keeps_its_own_prompt_and_images(folder: Path, tmp_path: Path) -> None:
    row, report = measured(folder, "chat", tmp_path / "a")
    assert row["prompt"].startswith("<|im_start|>user") and row["model"]["image_fit"] == "crop"
    assert report["judge"] == "keyword:vlguard"
    assert "the checkpoint's own template, as llava_v1 is for models of LLaVA-1.5's kind" in report["notes"][0]
    assert "the checkpoint's own image fit, as pad is for models of LLaVA-1.5's kind (crop)" in report["notes"][0]


def test_the_papers_suite_is_the_released_script() -> None:
    """VLGuard, VLGuard_eval.py (``--max_new_tokens``, default 256), utils/model_utils.py (``conv_mode``, greedy) and
    utils/utils.py (the phrases). LLaVA, llava/conversation.py: ``conv_llava_v1`` begins with the same sentence."""
    suite = suite_named("paper")
    released = {"max_new_tokens": 256, "conv_mode": "llava_v1", "do_sample": False, "min_new_tokens": 1}
    assert (suite.judge, suite.max_new_tokens) == ("keyword:vlguard", released["max_new_tokens"])
    assert suite.template == released["conv_mode"] and HUMAN in chat_template("llava_v1")
    assert suite.image_fit == "pad"
