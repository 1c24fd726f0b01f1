"""Open questions whose answers another answer, or a grader, is needed to value: AlpacaEval and MM-Vet."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from vlsafe.conversation import ImageRef
from vlsafe.evaluation.benchmarks.base import Benchmark, Direction
from vlsafe.evaluation.benchmarks.files import cell, raise_all, read_json, read_records
from vlsafe.evaluation.pairs import RIVAL
from vlsafe.evaluation.records import Item


class AlpacaEval(Benchmark):
    """AlpacaEval's instructions (805), text only. ``path``: its JSON with ``instruction`` and ``output``, the answers
    of the rival, text-davinci-003.

    ``first``: the paper asks the first 300. The win rate comes from a pair judge (:mod:`vlsafe.evaluation.pairs`); here
    only ``refused`` is scored.
    """

    def __init__(
        self,
        path: str | Path,
        limit: int | None = None,
        name: str = "alpaca_eval",
        seed: int = 0,
        first: int | None = 300,
    ) -> None:
        super().__init__(name, limit, seed, path)
        self.first = first

    def load(self) -> list[Item]:
        rows = read_records(self.path, ("instruction",), "python -m vlsafe fetch alpaca-eval")
        raise_all(
            f"{self.path}, record {number}: no 'output', the answer to compare with"
            for number, row in enumerate(rows, start=1)
            if not isinstance(row.get("output"), str)
        )
        return [
            Item(
                id=f"{self.name}/{number}",
                benchmark=self.name,
                variant="" if self.first is None else f"first={self.first}",
                side="utility",
                question=row["instruction"],
                group=row.get("dataset") or "",
                meta={RIVAL: row["output"]},
            )
            for number, row in enumerate(rows[: self.first], start=1)
        ]


class MMVet(Benchmark):
    """MM-Vet (arXiv 2308.02490): 218 open questions on six capabilities. ``path``: a folder with ``mm-vet.json`` and
    ``images/``.

    ``score[total]`` and each capability's need a grader's 0 to 1 for each answer (the verb ``grade``,
    :mod:`vlsafe.evaluation.grades`); without it only ``refused`` is scored.
    """

    better: ClassVar[dict[str, Direction]] = Benchmark.better | {"score": "higher"}

    def __init__(self, path: str | Path, limit: int | None = None, name: str = "mm_vet", seed: int = 0) -> None:
        super().__init__(name, limit, seed, path)

    def load(self) -> list[Item]:
        content = read_json(self.path / "mm-vet.json", "python -m vlsafe fetch mm-vet")
        raise_all(
            f"{self.path / 'mm-vet.json'}, record {key!r}: lacks {column}"
            for key, row in content.items()
            for column in ("imagename", "question", "answer", "capability")
            if cell(row, column) is None
        )
        return [
            Item(
                id=f"{self.name}/{key}",
                benchmark=self.name,
                variant="",
                side="utility",
                question=row["question"],
                image=ImageRef(self.path / "images", row["imagename"]),
                reference=row["answer"],
                group=",".join(sorted(row["capability"])),
                cluster=row["imagename"],
            )
            for key, row in content.items()
        ]
