"""POPE (arXiv 2305.10355): is there such an object in the picture? Half of the right answers are no."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from vlsafe.conversation import ImageRef
from vlsafe.errors import DataError
from vlsafe.evaluation.benchmarks.answers import SHORT_ANSWER, ShortAnswers, yes_or_no
from vlsafe.evaluation.benchmarks.files import checked, read_text
from vlsafe.evaluation.records import Item, Response, Verdict
from vlsafe.evaluation.tallies import Sums, Tally, ratio
from vlsafe.fetch.paths import resolved

_FILES = {
    "random": "coco_pope_random.json",
    "random2910": "coco_pope_random_2910_llava15.json",
    "popular": "coco_pope_popular.json",
    "adversarial": "coco_pope_adversarial.json",
}


class POPE(ShortAnswers):
    """``path``: a folder with the authors' files; ``pictures``: COCO's val2014.

    Metrics of each split: ``accuracy``, ``f1``, ``precision``, ``recall`` of "yes", ``yes_ratio`` of the predictions
    (50 would be unbiased), ``unparsed``; over the splits ``f1_mean``, the headline. Answers that are neither yes nor no
    are wrong: they miss an object that is there, and are never counted as a no.

    ``random``: the authors' 3,000 questions, or the 2,910 of their older file, which LLaVA-1.5 reports.
    """

    joins_variants = True
    better = ShortAnswers.better | {
        "f1": "higher",
        "f1_mean": "higher",
        "precision": "higher",
        "recall": "higher",
        "yes_ratio": "lower",  # models err towards yes
    }

    def __init__(
        self,
        path: str | Path,
        limit: int | None = None,
        name: str = "pope",
        seed: int = 0,
        random: Literal["3000", "2910"] = "3000",
        pictures: str | Path = "cache:coco-val2014/val2014",
    ) -> None:
        super().__init__(name, limit, seed, path)
        self.splits = ["random" if random == "3000" else "random2910", "popular", "adversarial"]
        self._pictures = pictures

    def load(self) -> list[Item]:
        root = Path(resolved(str(self._pictures)))
        return [item for split in self.splits for item in self._split(split, root)]

    def _split(self, split: str, root: Path) -> list[Item]:
        file = self.path / _FILES[split]
        columns = ("question_id", "image", "text", "label")
        rows = checked(lines(file, "python -m vlsafe fetch pope coco-val2014"), columns, file)
        return [
            Item(
                id=f"{self.name}/{split}/{row['question_id']}",
                benchmark=self.name,
                variant=split,
                side="utility",
                question=row["text"] + SHORT_ANSWER,
                image=ImageRef(root, row["image"]),
                reference=row["label"],
                cluster=row["image"],
                max_new_tokens=128,
            )
            for row in rows
        ]

    @classmethod
    def read(cls, item: Item, text: str) -> str:
        return yes_or_no(text)

    @classmethod
    def tallies(
        cls, items: Sequence[Item], responses: Mapping[str, Response], verdicts: Mapping[str, Verdict]
    ) -> dict[str, Tally]:
        splits = sorted({item.variant for item in items})
        scored = [item for item in items if not responses[item.id].error]
        counts: dict[str, list[float]] = {}
        for item in scored:
            row = counts.setdefault(item.cluster, [0.0] * 4 * len(splits))
            told, place = yes_or_no(responses[item.id].text), 4 * splits.index(item.variant)
            row[place] += told == "yes" and item.reference == "yes"
            row[place + 1] += told == "yes"
            row[place + 2] += item.reference == "yes"
            row[place + 3] += 1
        per_cluster = {key: tuple(row) for key, row in counts.items()}
        result: dict[str, Tally] = {}
        for place, split in enumerate(splits):
            of_split = [item for item in items if item.variant == split]
            known = sum(item.variant == split for item in scored)
            own = {key: row[4 * place : 4 * place + 4] for key, row in per_cluster.items()}
            for metric, value in _METRICS.items():
                name = f"{of_split[0].scope}/{metric}"
                result[name] = Tally(own, value, known, len(of_split) - known)
        whole = Tally(per_cluster, _mean_f1, len(scored), len(items) - len(scored))
        return result | {f"{items[0].benchmark}/f1_mean": whole}


def _f1(sums: Sums) -> Sums:
    """From hits, predicted yes, labelled yes and all: [..., 4]."""
    return 100 * ratio(2 * sums[..., 0], sums[..., 1] + sums[..., 2])


def _mean_f1(sums: Sums) -> Sums:
    splits = sums.shape[-1] // 4
    return np.asarray(sum(_f1(sums[..., 4 * k : 4 * k + 4]) for k in range(splits)) / splits)


_METRICS = {
    "f1": _f1,
    "precision": lambda sums: 100 * ratio(sums[..., 0], sums[..., 1]),
    "recall": lambda sums: 100 * ratio(sums[..., 0], sums[..., 2]),
    "yes_ratio": lambda sums: 100 * ratio(sums[..., 1], sums[..., 3]),
}


def lines(file: Path, get: str) -> list[dict[str, str]]:
    """JSON Lines, though the files end in ``.json``."""
    try:
        return [json.loads(line) for line in read_text(file, get).split("\n") if line.strip()]
    except ValueError as error:
        raise DataError(f"{file}: not JSON Lines ({error}); get it again with `{get}`") from error
