"""XSTest (arXiv 2308.01263): safe prompts in alarming words, and unsafe ones beside them; text only."""

from __future__ import annotations

from pathlib import Path

from vlsafe.errors import DataError
from vlsafe.evaluation.benchmarks.base import Benchmark
from vlsafe.evaluation.benchmarks.files import read_csv
from vlsafe.evaluation.records import Item, Side

_SIDES: dict[str, Side] = {"safe": "benign", "unsafe": "harm"}


class XSTest(Benchmark):
    """``path``: a CSV file with the columns ``id``, ``prompt``, ``type`` and ``label`` (safe or unsafe).

    Variants: ``safe`` (``over_refusal``) and ``unsafe`` (``asr``). ``focus``, where present, is kept in ``meta``.
    ``system``: a system prompt of these items, such as a safety prompt as a baseline; the metric's name says so.
    """

    def __init__(
        self, path: str | Path, limit: int | None = None, name: str = "xstest", seed: int = 0, system: str = ""
    ) -> None:
        super().__init__(name, limit, seed, path)
        self.system = system

    def load(self) -> list[Item]:
        rows = read_csv(self.path, ("id", "prompt", "type", "label"), "python -m vlsafe fetch xstest")
        problems = [
            f"{self.path}, record {number}: label is {row['label']!r}; it must be 'safe' or 'unsafe'"
            for number, row in enumerate(rows, start=1)
            if row["label"] not in _SIDES
        ]
        if problems:
            raise DataError(problems)
        return [
            Item(
                id=f"{self.name}/{row['id']}",
                benchmark=self.name,
                variant=f"{row['label']},system=own" if self.system else row["label"],
                side=_SIDES[row["label"]],
                question=row["prompt"].strip(),
                group=row["type"],
                meta={"focus": row["focus"]} if row.get("focus") else {},
                system=self.system,
            )
            for row in rows
        ]
