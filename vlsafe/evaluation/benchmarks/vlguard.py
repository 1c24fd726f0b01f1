"""VLGuard's test set (arXiv 2402.02207): unsafe pictures, and safe pictures with an unsafe and a safe instruction."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from vlsafe.data.sources.vlguard import Pair, Split, VLGuardRecord, read_records
from vlsafe.errors import DataError, MissingDataError
from vlsafe.evaluation.benchmarks.base import Benchmark
from vlsafe.evaluation.benchmarks.files import read_records as read_table
from vlsafe.evaluation.benchmarks.files import require
from vlsafe.evaluation.benchmarks.pictures import plain
from vlsafe.evaluation.pairs import RIVAL
from vlsafe.evaluation.records import Item
from vlsafe.fetch.paths import resolved


class VLGuard(Benchmark):
    """``path``: a folder with ``<split>.json`` and its pictures in ``<split>/`` or ``<split>.zip``.

    Variants: ``unsafe`` and ``safe_unsafe`` (``asr``), ``safe_safe`` (``over_refusal``). Missing pictures and malformed
    records raise DataError.

    Args:
        rivals: ``gpt4_safe_safes.json`` of the authors: answers of GPT-4V to the safe_safe instructions, with which
            a pair judge compares (:mod:`vlsafe.evaluation.pairs`). Of the 558, 17 are empty.
        images: ``blank`` or ``black`` asks the same words beside a plain picture, ``none`` beside none: what is
            refused then was refused for its words. The condition stands in the metric's name.
    """

    def __init__(
        self,
        path: str | Path,
        limit: int | None = None,
        name: str = "vlguard",
        split: Split = "test",
        seed: int = 0,
        rivals: str | Path | None = None,
        images: Literal["real", "none", "blank", "black"] = "real",
        system: str = "",
    ) -> None:
        super().__init__(name, limit, seed, path)
        self.split = split
        self.rivals = rivals
        self.images = images
        self.system = system

    def load(self) -> list[Item]:
        require(self.path / f"{self.split}.json", "python -m vlsafe fetch vlguard")
        pictures = [self.path / self.split, self.path / f"{self.split}.zip"]
        if not any(each.exists() for each in pictures):
            raise MissingDataError(
                f"picture root {pictures[0]} does not exist, nor {pictures[1].name} beside it; get the pictures with "
                "`python -m vlsafe fetch vlguard`"
            )
        records = read_records(self.path, self.split)
        rivals = self._rivals()
        return [self._item(record, pair, rivals) for record in records for pair in record.pairs]

    def _rivals(self) -> dict[str, str]:
        if self.rivals is None:
            return {}
        file = Path(resolved(str(self.rivals)))
        rows = read_table(file, ("id",), "python -m vlsafe fetch vlguard-rivals")
        return {row["id"]: row["output"] for row in rows}

    def _item(self, record: VLGuardRecord, pair: Pair, rivals: Mapping[str, str]) -> Item:
        settings = [
            pair.subset,
            "" if self.images == "real" else f"image={self.images}",
            "system=own" if self.system else "",
        ]
        variant = ",".join(filter(None, settings))
        meta = {} if record.safe else {"subcategory": record.subcategory}
        if pair.subset == "safe_safe" and rivals:
            if record.id not in rivals:
                raise DataError(f"{self.rivals}: no answer to {record.id!r}; is it of the same split?")
            meta = {RIVAL: rivals[record.id]}
        return Item(
            id=f"{self.name}/{variant}/{record.id}",
            benchmark=self.name,
            variant=variant,
            side="benign" if pair.subset == "safe_safe" else "harm",
            question=pair.instruction,
            image=record.image if self.images == "real" else plain(self.images),
            reference=pair.response,
            group=record.category,
            cluster=record.image.name,
            meta=meta,
            system=self.system,
        )
