"""Multiple choice: ScienceQA, MMLU and MMBench."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from vlsafe.conversation import ImageRef
from vlsafe.errors import ConfigError, DataError, MissingDataError
from vlsafe.evaluation.benchmarks.answers import LETTER_ANSWER, LETTERS, ShortAnswers, letter, listed
from vlsafe.evaluation.benchmarks.base import Outcomes
from vlsafe.evaluation.benchmarks.files import cell, raise_all, read_csv, read_json, read_records
from vlsafe.evaluation.benchmarks.table import embedded
from vlsafe.evaluation.records import Item, Response, Verdict

LETTER_TOKENS = 16
"""Most new tokens of a letter; a model that explains first has not followed the instruction."""


class ScienceQA(ShortAnswers):
    """ScienceQA (arXiv 2209.09513), as LLaVA-1.5 asks it. ``path``: a folder with ``problems.json``,
    ``pid_splits.json`` and the pictures ``images/<split>/<id>/image.png``.

    ``with_picture``: only questions that have one, 2,017 of the 4,241 of test, which is what papers call SQA-IMG.
    An answer is a letter alone, a letter with a stop before its text, or one "The answer is X."; all else is wrong.
    """

    def __init__(
        self,
        path: str | Path,
        limit: int | None = None,
        name: str = "scienceqa",
        seed: int = 0,
        split: Literal["test", "val", "train"] = "test",
        with_picture: bool = True,
    ) -> None:
        super().__init__(name, limit, seed, path)
        self.split = split
        self.with_picture = with_picture

    def load(self) -> list[Item]:
        get = "python -m vlsafe fetch scienceqa"
        problems = read_json(self.path / "problems.json", get)
        ids = read_json(self.path / "pid_splits.json", get)[self.split]
        raise_all(
            f"{self.path / 'problems.json'}: no problem {pid!r}, which pid_splits.json names; get it again with `{get}`"
            for pid in ids
            if pid not in problems
        )
        rows = [(pid, problems[pid]) for pid in ids if problems[pid].get("image") or not self.with_picture]
        return [self._item(pid, row) for pid, row in rows]

    def _item(self, pid: str, row: Mapping[str, Any]) -> Item:
        context = f"Context: {row['hint']}\n" if row["hint"].strip() else ""
        image = ImageRef(self.path / "images" / self.split, f"{pid}/image.png") if row.get("image") else None
        return Item(
            id=f"{self.name}/{self.split}/{pid}",
            benchmark=self.name,
            variant=f"{self.split},{'image' if self.with_picture else 'all'}",
            side="utility",
            question=f"{context}{row['question']}\n{listed(row['choices'])}\n{LETTER_ANSWER}",
            image=image,
            reference=LETTERS[row["answer"]],
            group=row.get("subject") or "",
            max_new_tokens=LETTER_TOKENS,
        )

    @classmethod
    def read(cls, item: Item, text: str) -> str:
        text = text.strip()
        if found := re.fullmatch(r"([A-J])\.?", text) or re.match(r"([A-J])\. ", text):
            return found[1]
        said = re.findall(r"The answer is ([A-J])\.", text)
        return str(said[0]) if len(said) == 1 else ""


_HEADER = "The following are multiple choice questions (with answers) about {}."
"""As in the authors' evaluation (hendrycks/test), which writes two spaces before the subject, and in EleutherAI's
lm-evaluation-harness, which writes one."""


class MMLU(ShortAnswers):
    """MMLU (arXiv 2009.03300): 57 subjects, 14,042 test questions, text only. ``path``: the Hugging Face folder with
    ``all/test-*.parquet``, or one file with ``question``, ``choices``, ``answer`` (0 to 3) and ``subject``.

    By likelihood, a question stands after the line that the usual numbers are asked with, which names its subject.

    Args:
        mode: ``likelihood``: the likeliest of the four letters, as the usual MMLU numbers; ``generate``: the letter in
            the written answer, as a user of a chat model sees it. The mode stands in the metric's name.
        shots: worked examples before each question, from ``all/dev-*.parquet`` (5 of each subject).
    """

    def __init__(
        self,
        path: str | Path,
        limit: int | None = None,
        name: str = "mmlu",
        seed: int = 0,
        mode: Literal["likelihood", "generate"] = "likelihood",
        shots: int = 0,
    ) -> None:
        super().__init__(name, limit, seed, path)
        if mode not in ("likelihood", "generate") or not 0 <= shots <= 5:
            raise ConfigError(f"benchmark {name!r}: mode is likelihood or generate, shots 0 to 5; not {mode}, {shots}")
        self.mode = mode
        self.shots = shots

    def load(self) -> list[Item]:
        examples: dict[str, list[str]] = {}
        for row in self._rows("dev") if self.shots else []:
            examples.setdefault(row["subject"], []).append(f"{self._question(row)}{LETTERS[row['answer']]}")
        return [self._item(n, row, examples) for n, row in enumerate(self._rows("test"), start=1)]

    def _rows(self, split: str) -> list[dict[str, Any]]:
        get = "python -m vlsafe fetch mmlu"
        columns = ("question", "subject", "choices", "answer")
        if self.path.is_file():
            if split == "dev":
                raise ConfigError(f"benchmark {self.name!r}: shots need the folder with all/dev-*.parquet as path")
            return read_records(self.path, columns, get)
        files = sorted(self.path.glob(f"all/{split}-*.parquet"))
        if not files:
            raise MissingDataError(f"{self.path}: no all/{split}-*.parquet; get it with `{get}`, or correct the path")
        return [row for file in files for row in read_records(file, columns, get)]

    def _question(self, row: Mapping[str, Any]) -> str:
        return f"{row['question']}\n{listed(row['choices'])}\nAnswer: "

    def _item(self, number: int, row: Mapping[str, Any], examples: Mapping[str, Sequence[str]]) -> Item:
        variant = f"test,{self.mode},shots={self.shots}"
        shots = list(examples.get(row["subject"], ()))[: self.shots]
        asked = self._question(row).rstrip()
        if self.mode == "generate":
            asked = asked.removesuffix("\nAnswer:") + f"\n{LETTER_ANSWER}"
        else:
            shots.insert(0, _HEADER.format(row["subject"].replace("_", " ")))
        return Item(
            id=f"{self.name}/{variant}/{number}",
            benchmark=self.name,
            variant=variant,
            side="utility",
            question="\n\n".join([*shots, asked]),
            reference=LETTERS[row["answer"]],
            group=row["subject"],
            options=tuple(LETTERS[: len(row["choices"])]) if self.mode == "likelihood" else (),
            max_new_tokens=LETTER_TOKENS,
        )

    @classmethod
    def read(cls, item: Item, text: str) -> str:
        return letter(text, ["", "", "", ""])


class MMBench(ShortAnswers):
    """MMBench (arXiv 2307.06281). ``path``: the authors' tsv with pictures as base64; ``split`` names it.

    Circular: a question with k options is asked k times with the options rotated, and counts only when every rotation
    is right. The rotations are made here from the file's first copies. Metrics: ``circular``; ``accuracy`` of the first
    copies alone; ``unparsed``. Letters are found by rules alone, and what has none is wrong: the authors' tool asks a
    language model instead, and guesses at random when that fails.
    """

    better = ShortAnswers.better | {"circular": "higher"}

    def __init__(
        self, path: str | Path, limit: int | None = None, name: str = "mmbench", seed: int = 0, split: str = "dev"
    ) -> None:
        super().__init__(name, None, seed, path)
        self.groups = limit
        self.split = split

    def items(self) -> list[Item]:
        """``limit`` draws questions, each with all its rotations."""
        items = super().items()
        if self.groups is None:
            return items
        drawn = {item.cluster for item in self._drawn([each for each in items if _first(each)], self.groups)}
        return [item for item in items if item.cluster in drawn]

    def load(self) -> list[Item]:
        columns = ("index", "question", "A", "B", "answer", "image")
        rows = read_csv(self.path, columns, "python -m vlsafe fetch mmbench-dev", "\t")
        pictures = {row["index"]: row["image"] for row in rows}
        first = [row for row in rows if int(row["index"]) < 10**6]
        return [item for row in first for item in self._rotations(row, pictures)]

    def _rotations(self, row: Mapping[str, str], pictures: Mapping[str, str]) -> list[Item]:
        options = [str(cell(row, choice)).strip() for choice in "ABCD" if (cell(row, choice) or "").strip()]
        right = "ABCD".index(row["answer"].strip())
        image = embedded(row["image"]) or embedded(pictures.get(row["image"].strip(), ""))
        if image is None or right >= len(options):
            raise DataError(f"{self.path}, index {row['index']}: no picture, or an answer that is no option")
        hint = f"{row['hint'].strip()}\n" if (row.get("hint") or "").strip() else ""
        items = []
        for turn in range(len(options)):
            rotated = options[turn:] + options[:turn]
            items.append(
                Item(
                    id=f"{self.name}/{self.split}/{row['index']}/{turn}",
                    benchmark=self.name,
                    variant=self.split,
                    side="utility",
                    question=f"{hint}{row['question']}\n{listed(rotated)}\n{LETTER_ANSWER}",
                    image=image,
                    reference=LETTERS[(right - turn) % len(options)],
                    group=row.get("category") or "",
                    cluster=f"{self.split}/{row['index']}",
                    meta={"rotation": str(turn), "choices": "\n".join(rotated)},
                    max_new_tokens=LETTER_TOKENS,
                )
            )
        return items

    @classmethod
    def read(cls, item: Item, text: str) -> str:
        return letter(text, item.meta["choices"].split("\n"))

    @classmethod
    def outcomes(
        cls, items: Sequence[Item], responses: Mapping[str, Response], verdicts: Mapping[str, Verdict]
    ) -> Outcomes:
        outcomes = super().outcomes(items, responses, verdicts)
        for name in [name for name in outcomes if name.endswith("/accuracy")]:
            right = outcomes[name]
            outcomes[name] = {item.id: right[item.id] for item in items if item.id in right and _first(item)}
            scope = name.removesuffix("/accuracy")
            groups: dict[str, list[bool | None]] = {}
            for item in items:
                if item.scope == scope:
                    groups.setdefault(item.cluster, []).append(right[item.id])
            outcomes[f"{scope}/circular"] = {key: all_right(each) for key, each in groups.items()}
        return outcomes


def all_right(rotations: Sequence[bool | None]) -> bool | None:
    """One wrong is enough to be wrong; else one unknown leaves it unknown."""
    if False in rotations:
        return False
    return None if None in rotations else True


def _first(item: Item) -> bool:
    return item.meta["rotation"] == "0"
