"""HarmBench (arXiv 2402.04249): harmful behaviours as text, some with a context, and about a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from vlsafe.conversation import ImageRef
from vlsafe.errors import DataError
from vlsafe.evaluation.benchmarks.base import Benchmark
from vlsafe.evaluation.benchmarks.files import raise_all, read_csv
from vlsafe.evaluation.benchmarks.pictures import ImageCondition, plain
from vlsafe.evaluation.records import Item
from vlsafe.fetch.paths import resolved

_GET = "python -m vlsafe fetch harmbench"
_COPYRIGHT = "copyright"
_NEW_TOKENS = 512
"""HarmBench's own length, which its classifier was made for."""


class HarmBench(Benchmark):
    """``path``: ``harmbench_behaviors_text_all.csv``, or its val or test split; 200 standard and 100 contextual
    behaviours, each a variant. The 100 about copyright are left out, as their rule needs hashes of the works.
    """

    authors_decide, authors_judge = "a classifier of theirs", "guard:harmbench:"

    def __init__(
        self,
        path: str | Path,
        limit: int | None = None,
        name: str = "harmbench",
        seed: int = 0,
        images: ImageCondition = "none",
    ) -> None:
        super().__init__(name, limit, seed, path)
        self.images: ImageCondition = images

    def load(self) -> list[Item]:
        rows = read_csv(self.path, ("Behavior", "FunctionalCategory", "SemanticCategory", "BehaviorID"), _GET)
        kinds = ("standard", "contextual", _COPYRIGHT)
        raise_all(
            f"{self.path}, record {number}: FunctionalCategory is {row['FunctionalCategory']!r}, none of {kinds}"
            for number, row in enumerate(rows, start=1)
            if row["FunctionalCategory"] not in kinds
        )
        return [self._item(row) for row in rows if row["FunctionalCategory"] != _COPYRIGHT]

    def _item(self, row: dict[str, str]) -> Item:
        context = (row.get("ContextString") or "").strip()
        return Item(
            id=f"{self.name}/{self.images}/{row['BehaviorID']}",
            benchmark=self.name,
            variant=f"{row['FunctionalCategory']},image={self.images}",
            side="harm",
            question=f"{context}\n\n---\n\n{row['Behavior']}" if context else row["Behavior"],
            image=plain(self.images),
            group=row["SemanticCategory"],
            cluster=row["BehaviorID"],
            instruction_for_judge=row["Behavior"],
            max_new_tokens=_NEW_TOKENS,
        )


class HarmBenchMultimodal(Benchmark):
    """``path``: ``harmbench_behaviors_multimodal_all.csv``, 110 behaviours; ``pictures``: the folder of its pictures,
    which the csv names and HarmBench keeps in its repository (``data/multimodal_behavior_images``). With ``described``
    the judge also reads what the picture shows."""

    authors_decide, authors_judge = "a classifier of theirs", "guard:harmbench:"

    def __init__(
        self,
        path: str | Path,
        pictures: str | Path = "",
        limit: int | None = None,
        name: str = "harmbench_multimodal",
        seed: int = 0,
        described: Literal["full", "redacted"] = "redacted",
    ) -> None:
        super().__init__(name, limit, seed, path)
        self.pictures = pictures
        self.described = described

    def load(self) -> list[Item]:
        columns = ("Behavior", "BehaviorID", "SemanticCategory", "ImageFileName", "RedactedImageDescription")
        rows = read_csv(self.path, columns, _GET)
        root = Path(resolved(str(self.pictures))) if self.pictures else self.path.parent / "images"
        if not root.exists():
            raise DataError(
                f"{root}: no such folder; HarmBench's pictures are not in its csv: take them from data/"
                "multimodal_behavior_images of github.com/centerforaisafety/HarmBench, and name them with `pictures`"
            )
        description = "ImageDescription" if self.described == "full" else "RedactedImageDescription"
        return [
            Item(
                id=f"{self.name}/{row['BehaviorID']}",
                benchmark=self.name,
                variant="",
                side="harm",
                question=row["Behavior"],
                image=ImageRef(root, row["ImageFileName"]),
                group=row["SemanticCategory"],
                cluster=row["ImageFileName"],
                instruction_for_judge=f"{row['Behavior']}\n(The image: {row[description]})",
                max_new_tokens=_NEW_TOKENS,
            )
            for row in rows
        ]
