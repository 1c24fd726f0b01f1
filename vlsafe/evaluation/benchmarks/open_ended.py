"""Open questions whose answers another answer, or a grader, is needed to value: AlpacaEval and MM-Vet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from vlsafe.conversation import ImageRef
from vlsafe.errors import DataError
from vlsafe.evaluation.benchmarks.base import Benchmark
from vlsafe.evaluation.benchmarks.files import cell, raise_all, read_json, read_records
from vlsafe.evaluation.pairs import RIVAL
from vlsafe.evaluation.records import Item, Metric
from vlsafe.evaluation.tallies import estimate, mean


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

    The score needs a grader's 0 to 1 for each answer, from several runs: :func:`graded`. Without it only ``refused``
    is scored.
    """

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


def graded(items: Sequence[Item], grades: Mapping[str, Sequence[float | None]]) -> dict[str, Metric]:
    """MM-Vet's scores in percent from a grader's runs, by item id: the total and each capability's, an item counting
    for each of its capabilities. A grade that could not be read is None: the mean is over the others, and an item
    without any is an error, not a 0. Raises DataError for a missing item or a grade outside 0..1.
    """
    missing = [f"item {item.id!r} has no grade" for item in items if item.id not in grades]
    wrong = [
        f"item {item_id!r}: grade {grade} is not from 0 to 1"
        for item_id, runs in grades.items()
        for grade in runs
        if grade is not None and not 0 <= grade <= 1
    ]
    if missing or wrong:
        raise DataError(missing + wrong)
    known = {item_id: [grade for grade in runs if grade is not None] for item_id, runs in grades.items()}
    scores = {item_id: fmean(runs) if runs else None for item_id, runs in known.items()}
    capabilities = sorted({capability for item in items for capability in item.group.split(",")})
    members = {name: [item for item in items if name in item.group.split(",")] for name in capabilities}
    return {name: estimate(mean(each, scores)) for name, each in ({"total": list(items)} | members).items()}
