"""MME (arXiv 2306.13394): 14 subtasks of yes and no, two questions a picture, one of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from vlsafe.errors import DataError
from vlsafe.evaluation.benchmarks.answers import SHORT_ANSWER, ShortAnswers
from vlsafe.evaluation.benchmarks.base import Outcomes
from vlsafe.evaluation.benchmarks.choices import all_right
from vlsafe.evaluation.benchmarks.files import cell, read_records
from vlsafe.evaluation.benchmarks.pictures import unpacked
from vlsafe.evaluation.records import Item, Response, Verdict
from vlsafe.evaluation.tallies import Sums, Tally, ratio

PERCEPTION = [
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
]  # 200 points each
COGNITION = ["commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"]


class MME(ShortAnswers):
    """``path``: a folder of parquet files (or one) with ``question_id``, ``question``, ``answer``, ``category``,
    ``image``.

    Metrics of each subtask: ``accuracy``, ``accuracy_plus`` (both questions of a picture right), ``unparsed``. Of the
    whole: ``perception`` and ``cognition`` in percent of their 2,000 and 800 points, a subtask's points being accuracy
    plus accuracy_plus; so 1,510.7 points of perception are 75.5.
    """

    joins_variants = True
    better = ShortAnswers.better | {"accuracy_plus": "higher", "perception": "higher", "cognition": "higher"}

    def __init__(self, path: str | Path, limit: int | None = None, name: str = "mme", seed: int = 0) -> None:
        super().__init__(name, None, seed, path)
        self.pictures_each = limit

    def items(self) -> list[Item]:
        """``limit`` draws pictures of each subtask, with both questions."""
        items = super().items()
        if self.pictures_each is None:
            return items
        first = list({item.cluster: item for item in reversed(items)}.values())
        drawn = {item.cluster for item in self._drawn(first, self.pictures_each)}
        return [item for item in items if item.cluster in drawn]

    def load(self) -> list[Item]:
        columns = ("question_id", "question", "answer", "category", "image")
        rows = read_records(self.path, columns, "python -m vlsafe fetch mme")
        known = {*PERCEPTION, *COGNITION}
        unknown = sorted({row["category"] for row in rows} - known)
        if unknown:
            raise DataError(f"{self.path}: unknown subtask {', '.join(unknown)}; MME has {', '.join(sorted(known))}")
        return [
            Item(
                id=f"{self.name}/{number}",
                benchmark=self.name,
                variant=row["category"],
                side="utility",
                question=row["question"].replace(" Please answer yes or no.", "") + SHORT_ANSWER,
                image=unpacked(cell(row, "image.bytes")),
                reference=row["answer"].strip().lower(),
                cluster=f"{row['category']}/{row['question_id']}",
                max_new_tokens=128,
            )
            for number, row in enumerate(rows, start=1)
        ]

    @classmethod
    def read(cls, item: Item, text: str) -> str:
        return mme_answer(text)

    @classmethod
    def outcomes(
        cls, items: Sequence[Item], responses: Mapping[str, Response], verdicts: Mapping[str, Verdict]
    ) -> Outcomes:
        outcomes = super().outcomes(items, responses, verdicts)
        pairs: dict[tuple[str, str], list[bool | None]] = {}
        for item in items:
            pairs.setdefault((item.scope, item.cluster), []).append(outcomes[f"{item.scope}/accuracy"][item.id])
        for (scope, cluster), right in pairs.items():
            outcomes.setdefault(f"{scope}/accuracy_plus", {})[cluster] = all_right(right)
        return outcomes

    @classmethod
    def tallies(
        cls, items: Sequence[Item], responses: Mapping[str, Response], verdicts: Mapping[str, Verdict]
    ) -> dict[str, Tally]:
        outcomes = cls.outcomes(items, responses, verdicts)
        result = {}
        for metric, subtasks in (("perception", PERCEPTION), ("cognition", COGNITION)):
            members = [item for item in items if item.variant in subtasks]
            present = sorted({item.variant for item in members})
            if present:
                tally = _points(members, present, outcomes)
                result[f"{items[0].benchmark}/{metric}"] = tally
        return result


def _points(items: Sequence[Item], subtasks: Sequence[str], outcomes: Outcomes) -> Tally:
    """For each picture and subtask: right answers, answers, both right, pictures. A picture with an error is left out,
    so that both halves of the points rest on the same answers."""
    counts: dict[str, list[float]] = {}
    unknown: set[str] = set()
    for item in items:
        both = outcomes[f"{item.scope}/accuracy_plus"][item.cluster]
        right = outcomes[f"{item.scope}/accuracy"][item.id]
        if both is None or right is None:
            unknown.add(item.cluster)
            continue
        row = counts.setdefault(item.cluster, [0.0] * 4 * len(subtasks))
        place = 4 * subtasks.index(item.variant)
        row[place] += right
        row[place + 1] += 1
        row[place + 2 : place + 4] = [float(both), 1.0]
    known = {key: tuple(row) for key, row in counts.items() if key not in unknown}
    n = sum(item.cluster in known for item in items)
    return Tally(known, partial(_percent_of_points, len(subtasks)), n, len(items) - n)


def _percent_of_points(subtasks: int, sums: Sums) -> Sums:
    each = [
        (ratio(sums[..., 4 * k], sums[..., 4 * k + 1]) + ratio(sums[..., 4 * k + 2], sums[..., 4 * k + 3])) / 2
        for k in range(subtasks)
    ]
    return 100 * np.mean(each, axis=0)


def mme_answer(text: str) -> str:
    """The authors' rule: yes or no alone (also y, n), else whichever the first four characters hold; else ""."""
    text = text.strip().lower().replace(".", "")
    if text in ("y", "n"):
        return "yes" if text == "y" else "no"
    if text in ("yes", "no"):
        return text
    return "yes" if "yes" in text[:4] else "no" if "no" in text[:4] else ""
