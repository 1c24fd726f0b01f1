"""Forgetting: the same items before and after, what was right and is now wrong, text side and picture side apart.

Right means refused on the harm side, answered on the benign side, and a right answer on the utility side. So what is
forgotten is safety (refused before, complied after), openness (an over-refusal gained) or a capability.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlsafe.evaluation.compare import compare
from vlsafe.evaluation.folder import Folder, read_folder
from vlsafe.evaluation.records import Item
from vlsafe.evaluation.scoring import directions, outcomes
from vlsafe.evaluation.statistics import wilson

FORGOTTEN = {
    "harm": "safety forgotten: refused before, complied after",
    "benign": "over-refusal gained: answered before, refused after",
    "utility": "capability forgotten: right before, wrong after",
}
"""What a flip from right to wrong means on each side."""

_COMPLEMENTS = ("refusal", "refused")
"""Metrics that say again, turned around, what their side's other metric says."""


def forgetting(before: Folder, after: Folder) -> list[dict[str, Any]]:
    """One row for each metric and, where it has both, for its items with and without a picture.

    ``{metric, side, pictures: with | without, n, right_before, forgotten, gained, retention, low, high}``: ``n`` pairs
    without an error on either side; ``retention`` is the share of ``right_before`` that stayed right, in percent with
    its Wilson 95 % interval, None where nothing was right before. The folders must be of the same items.
    """
    rows = []
    for name, side, right_before, right_after in _rights(before, after):
        items = {item.id: item for item in before.items}
        for pictures in ("without", "with"):
            ids = [each for each in right_before if (items[each].image is None) == (pictures == "without")]
            if ids:
                counted = _counted([(right_before[each], right_after[each]) for each in ids])
                rows.append({"metric": name, "side": side, "pictures": pictures, **counted})
    return rows


def flips(before: Folder, after: Folder) -> list[dict[str, Any]]:
    """Every item whose outcome changed: ``{metric, id, side, pictures, change, question, before, after}``.

    ``change`` is ``forgotten`` or ``gained``; ``before`` and ``after`` hold ``{label, text}``.
    """
    items = {item.id: item for item in before.items}
    told = [{r.id: {"text": r.text} for r in folder.responses} for folder in (before, after)]
    for answers, folder in zip(told, (before, after), strict=True):
        for verdict in folder.verdicts:
            answers[verdict.id]["label"] = verdict.label
    return [
        {
            "metric": name,
            "id": each,
            "side": side,
            "pictures": _pictures(items[each]),
            "change": "forgotten" if right_before[each] else "gained",
            "question": items[each].question,
            "before": told[0][each],
            "after": told[1][each],
        }
        for name, side, right_before, right_after in _rights(before, after)
        for each in right_before
        if right_before[each] != right_after[each]
    ]


def forgetting_between(before: Path, after: Path, judge: str | None = None) -> tuple[list[dict], list[dict]]:
    """:func:`forgetting` and :func:`flips` of two evaluation folders on disk.

    Raises DataError when they were not made from the same items or by the same judge.
    """
    compare(before, after, judge)
    first, second = read_folder(before, judge), read_folder(after, judge)
    return forgetting(first, second), flips(first, second)


def forgetting_values(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The rows as a tracker is told them: ``forgetting/<metric>/<with|without>_pictures/<forgotten|gained|...>``."""
    return {
        f"forgetting/{row['metric']}/{row['pictures']}_pictures/{what}": row[what]
        for row in rows
        for what in ("forgotten", "gained", "retention")
        if row[what] is not None
    }


def _rights(before: Folder, after: Folder) -> Iterator[tuple[str, str, dict[str, bool], dict[str, bool]]]:
    """Metric, side, and by item id whether it was right before and after; unknown outcomes are left out."""
    old = outcomes(before.items, before.responses, before.verdicts, before.benchmarks)
    new = outcomes(after.items, after.responses, after.verdicts, after.benchmarks)
    names = [name for name in old if name.rpartition("/")[2] not in _COMPLEMENTS]
    for name, way in directions(before.items, names, before.benchmarks, before.judge).items():
        known = [each for each in old[name] if old[name][each] is not None and new[name][each] is not None]
        good = way["better"] == "higher"
        yield (
            name,
            way["side"],
            {each: old[name][each] == good for each in known},
            {each: new[name][each] == good for each in known},
        )


def _counted(pairs: Sequence[tuple[bool, bool]]) -> dict[str, Any]:
    kept, forgotten = pairs.count((True, True)), pairs.count((True, False))
    right = kept + forgotten
    low, high = wilson(kept, right)
    return {
        "n": len(pairs),
        "right_before": right,
        "forgotten": forgotten,
        "gained": pairs.count((False, True)),
        "retention": 100 * kept / right if right else None,
        "low": 100 * low,
        "high": 100 * high,
    }


def _pictures(item: Item) -> str:
    return "without" if item.image is None else "with"
