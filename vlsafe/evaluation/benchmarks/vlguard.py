"""VLGuard's test set (arXiv 2402.02207): unsafe pictures, and safe pictures with an unsafe and a safe instruction."""

from __future__ import annotations

from pathlib import Path

from vlsafe.data.sources.vlguard import Pair, Split, VLGuardRecord, read_records
from vlsafe.evaluation.benchmarks.base import Benchmark
from vlsafe.evaluation.benchmarks.files import require
from vlsafe.evaluation.records import Item


class VLGuard(Benchmark):
    """``path``: a folder with ``<split>.json`` and its pictures in ``<split>/`` or ``<split>.zip``.

    Variants: ``unsafe`` and ``safe_unsafe`` (``asr``), ``safe_safe`` (``over_refusal``). Missing pictures and malformed
    records raise DataError.
    """

    def __init__(
        self,
        path: str | Path,
        limit: int | None = None,
        name: str = "vlguard",
        split: Split = "test",
        seed: int = 0,
    ) -> None:
        super().__init__(name, limit, seed, path)
        self.split = split

    def load(self) -> list[Item]:
        require(self.path / f"{self.split}.json", "python -m vlsafe fetch vlguard")
        records = read_records(self.path, self.split)
        return [self._item(record, pair) for record in records for pair in record.pairs]

    def _item(self, record: VLGuardRecord, pair: Pair) -> Item:
        return Item(
            id=f"{self.name}/{pair.subset}/{record.id}",
            benchmark=self.name,
            variant=pair.subset,
            side="benign" if pair.subset == "safe_safe" else "harm",
            question=pair.instruction,
            image=record.image,
            reference=pair.response,
            group=record.category,
            cluster=record.image.name,
            meta={} if record.safe else {"subcategory": record.subcategory},
        )
