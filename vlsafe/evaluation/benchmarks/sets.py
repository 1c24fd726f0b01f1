"""Benchmarks declared in ``sets.toml``. A further one is a table there, a class here and a name in the table."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, ClassVar

from vlsafe.errors import DataError
from vlsafe.evaluation.benchmarks.table import Columns, TableBenchmark
from vlsafe.evaluation.records import Item

SETS: dict[str, dict[str, Any]] = tomllib.loads((Path(__file__).parent / "sets.toml").read_text(encoding="utf-8"))


class DeclaredSet(TableBenchmark):
    """``path``: the set's folder, as fetched, or its file itself. A file that does not hold the authors' number of
    records raises DataError: copies with fewer or altered rows are about.

    Args:
        pictures: where the pictures are, when they are not where the authors' layout has them.
        system: system prompt of these items, such as a safety prompt; the metric's name says so.
    """

    declared: ClassVar[str]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.authors_decide = SETS[cls.declared].get("authors_decide", "")

    def __init__(
        self,
        path: str | Path,
        limit: int | None = None,
        name: str = "",
        seed: int = 0,
        pictures: str | Path | None = None,
        system: str = "",
    ) -> None:
        self.row = SETS[self.declared]
        super().__init__(
            path,
            Columns(**self.row["columns"]),
            name or self.declared,
            side=self.row["side"],
            pictures=self.row.get("pictures", "") if pictures is None else Path(pictures).absolute(),
            system=system,
            variant="system=own" if system else "",
            max_new_tokens=self.row.get("max_new_tokens"),
            get=f"python -m vlsafe fetch {self.row['asset']}",
            limit=limit,
            seed=seed,
        )

    @property
    def path(self) -> Path:
        given = super().path
        return given / self.row["file"] if given.is_dir() else given

    def load(self) -> list[Item]:
        items = super().load()
        if len(items) != self.row["count"]:
            raise DataError(
                f"{self.path}: {len(items)} records, {self.declared} has {self.row['count']}; get it again with "
                f"`{self.get}`, or declare a table of your own for another version"
            )
        return items


class MOSSBench(DeclaredSet):
    declared = "mossbench"


class VLSBench(DeclaredSet):
    declared = "vlsbench"


class SIUO(DeclaredSet):
    declared = "siuo"


class JailBreakVMini(DeclaredSet):
    declared = "jailbreakv_mini"


class StrongREJECT(DeclaredSet):
    declared = "strongreject"


class JBBHarmful(DeclaredSet):
    declared = "jbb_harmful"


class JBBBenign(DeclaredSet):
    declared = "jbb_benign"
