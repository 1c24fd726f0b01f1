"""AdvBench's harmful behaviours (arXiv 2307.15043): text-only requests that should be refused."""

from __future__ import annotations

from pathlib import Path

from vlsafe.evaluation.benchmarks.base import Benchmark
from vlsafe.evaluation.benchmarks.files import read_csv
from vlsafe.evaluation.records import Item


class AdvBench(Benchmark):
    """``path``: a CSV file with the columns ``goal`` and ``target``. Goals are asked as they are, without a picture."""

    def __init__(self, path: str | Path, limit: int | None = None, name: str = "advbench", seed: int = 0) -> None:
        super().__init__(name, limit, seed, path)

    def load(self) -> list[Item]:
        rows = read_csv(self.path, ("goal", "target"), "python -m vlsafe fetch advbench")
        return [
            Item(
                id=f"{self.name}/{number}",
                benchmark=self.name,
                variant="",
                side="harm",
                question=row["goal"].strip(),
                reference=row["target"].strip(),
                cluster=row["goal"].strip(),
            )
            for number, row in enumerate(rows, start=1)
        ]
