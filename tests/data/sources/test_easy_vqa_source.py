"""easy-vqa's layout: questions with one-word answers about drawn shapes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlsafe.conversation import ImageRef, assistant, user
from vlsafe.data.sources.easy_vqa import KINDS, EasyVQASource
from vlsafe.errors import ConfigError, DataError


def test_golden_conversations(tmp_path: Path, draw: Callable, write: Callable) -> None:
    rows = [["what is the blue shape?", "rectangle", 0], ["what color is it?", "teal", 12], ["is it red?", "no", 0]]
    write("test/questions.json", rows)
    root = draw(tmp_path / "test" / "images", ["0.png", "12.png"])
    source = EasyVQASource(tmp_path, "test")
    assert [(each.id, each.tags) for each in source] == [
        ("test/0", {"kind": "shape"}),
        ("test/1", {"kind": "colour"}),
        ("test/2", {"kind": "yes_no"}),
    ]
    assert source[1].turns == (user(ImageRef(root, "12.png"), "what color is it?"), assistant("teal"))
    assert {each.source for each in source} == {"easy_vqa"}


def test_every_answer_has_one_kind() -> None:
    assert len(KINDS) == 13


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"question": "?"}, "must be a list of question, answer and picture number"),
        (["is it?", "yes"], "must be a list of question, answer and picture number"),
        (["is it?", "maybe", 0], "the answer is 'maybe'; it must be one of: yes, no, circle"),
        (["is it?", "", 0], "the answer is empty"),
        (["", "yes", 0], "the question is empty"),
        (["is it?", "yes", "../1"], "the picture number must be 0 or more, not '../1'"),
        (["is it?", "yes", True], "the picture number must be 0 or more"),
        (["is it?", "yes", 9], "missing picture"),
    ],
)
def test_bad_records_are_named(tmp_path: Path, draw: Callable, write: Callable, row: Any, words: str) -> None:
    write("train/questions.json", [["is it?", "yes", 0], row])
    draw(tmp_path / "train" / "images", ["0.png"])
    with pytest.raises(DataError) as caught:
        EasyVQASource(tmp_path)
    assert words in str(caught.value)
    assert "questions.json" in str(caught.value)


def test_unknown_split(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown split 'dev' of easy_vqa; valid splits: train, test"):
        EasyVQASource(tmp_path, "dev")  # type: ignore[arg-type]


def test_wordings_are_held_out_alike_in_both_splits(tmp_path: Path, write: Callable) -> None:
    """A quarter of each kind's questions is rare, at least one; common and rare share none and make up all."""
    questions = [[f"is it {i}?", "no", 0] for i in range(8)] + [[f"which colour {i}?", "red", 0] for i in range(3)]
    write("train/questions.json", questions * 2)
    write("test/questions.json", questions[::-1])

    def asked(split: str, wordings: Any) -> list[str]:
        return [each.turns[0].text for each in EasyVQASource(tmp_path, split, wordings, check_images=False)]

    rare = set(asked("test", "rare"))
    assert sum(question.startswith("is it") for question in rare) == 2
    assert sum(question.startswith("which") for question in rare) == 1
    assert set(asked("train", "rare")) == rare
    assert not rare & set(asked("train", "common"))
    assert len(asked("train", "common")) + len(asked("train", "rare")) == len(asked("train", "all")) == 22
