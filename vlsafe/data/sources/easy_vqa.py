"""easy-vqa: questions about one coloured shape in a small drawn picture (Victor Zhou, package ``easy-vqa``)."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

from vlsafe.conversation import Conversation, assistant, user
from vlsafe.data.problems import BadRecord, Policy
from vlsafe.data.sources.base import RecordSource
from vlsafe.data.sources.fields import Fields
from vlsafe.errors import ConfigError

Split = Literal["train", "test"]
Wordings = Literal["all", "common", "rare"]

ANSWERS: dict[str, tuple[str, ...]] = {
    "yes_no": ("yes", "no"),
    "shape": ("circle", "rectangle", "triangle"),
    "colour": ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow"),
}
"""Every answer there is, by the kind of question that it answers."""

KINDS = {answer: kind for kind, answers in ANSWERS.items() for answer in answers}


class EasyVQASource(RecordSource):
    """``<path>/<split>/questions.json``, a list of ``[question, answer, picture number]``, and ``<split>/images/``.

    Ids are ``<split>/<index>``; the tag ``kind`` is ``yes_no``, ``shape`` or ``colour``. Raises as RecordSource, and
    ConfigError for an unknown split.

    Args:
        wordings: the published splits have other pictures but the same 107 questions. Train on ``common`` ones and
            test on the ``rare`` ones, a quarter of each kind, and no question of the test was seen either.
    """

    def __init__(
        self,
        path: Path | str,
        split: Split = "train",
        wordings: Wordings = "all",
        check_images: bool = True,
        name: str = "easy_vqa",
        on_bad_record: Policy = "error",
    ) -> None:
        if split not in get_args(Split):
            raise ConfigError(f"unknown split {split!r} of easy_vqa; valid splits: {', '.join(get_args(Split))}")
        self.split = split
        self.root = Path(path) / split / "images"
        super().__init__(Path(path) / split / "questions.json", name, check_images, on_bad_record)
        wanted = {"all": {True, False}, "common": {False}, "rare": {True}}[wordings]
        rare = rare_questions(row for _, _, row in self._records)
        self._kept = [index for index in self._kept if (self._records[index][2][0] in rare) in wanted]

    def convert(self, row: Any, index: int) -> Conversation:
        if not isinstance(row, list) or len(row) != 3:
            raise BadRecord(["a record must be a list of question, answer and picture number"])
        question, answer, number = row
        fields = Fields({})
        question = fields.check_text(question, "the question")
        answer = fields.check_text(answer, "the answer")
        if answer and answer not in KINDS:
            fields.note(f"the answer is {answer!r}; it must be one of: {', '.join(KINDS)}")
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            fields.note(f"the picture number must be 0 or more, not {number!r}")
        image = fields.image(self.root, f"{number}.png", "the picture")
        fields.done()
        turns = (user(image, question), assistant(answer))
        return Conversation(f"{self.split}/{index}", self.name, turns, {"kind": KINDS[answer]})


def rare_questions(rows: Iterable[list[Any]]) -> set[str]:
    """A quarter of the questions of each kind, at least one, by the order of their hashes: the same in both splits."""
    questions: dict[str, set[str]] = defaultdict(set)
    for question, answer, _ in rows:
        questions[KINDS[answer]].add(question)
    rare: set[str] = set()
    for same_kind in questions.values():
        ordered = sorted(same_kind, key=lambda question: hashlib.sha256(question.encode()).hexdigest())
        rare.update(ordered[: max(1, len(ordered) // 4)])
    return rare
