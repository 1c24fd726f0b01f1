"""Grades of open answers, 0 to 1 each, as ``grade`` leaves them in an evaluation's folder, and the scores they make."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from urllib.parse import quote

from vlsafe.errors import ConfigError, DataError
from vlsafe.evaluation.records import Item
from vlsafe.evaluation.tallies import Tally, mean

Grades = Mapping[str, Sequence[float | None]]
"""Item id -> a grade from each run; None where it could not be read."""


def grades_path(folder: Path, grader: str) -> Path:
    return folder / f"grades.{quote(grader, safe=':@+')}.json"


def read_grades(folder: Path, keys: Mapping[str, str]) -> dict[str, list[float | None]]:
    """Those of the folder's grader. ``keys``: item id -> key of its response; grades of another answer are left aside.

    Raises ConfigError when there are several graders, DataError for a file that is no record of grades.
    """
    found = sorted(folder.glob("grades.*.json"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ConfigError(f"{folder} holds grades of several graders ({names}); keep one of them there")
    if not found:
        return {}
    try:
        content = json.loads(found[0].read_text(encoding="utf-8"))
        given, graded = content["grades"], content["keys"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{found[0]}: no record of grades ({error!r}); grade again") from error
    return {item_id: runs for item_id, runs in given.items() if graded.get(item_id) == keys.get(item_id)}


def score_tallies(items: Sequence[Item], grades: Grades) -> dict[str, Tally]:
    """``mm_vet/score[total]`` and one for each capability (an item's ``group``, separated by commas; it counts for
    each of them) -> the mean grade. A scope of which nothing is graded has none.

    An item's score is the mean of its runs; without any that could be read it is an error, not a 0. Raises DataError
    for a grade outside 0..1.
    """
    wrong = [
        f"item {item_id!r}: grade {grade} is not from 0 to 1"
        for item_id, runs in grades.items()
        for grade in runs
        if grade is not None and not 0 <= grade <= 1
    ]
    if wrong:
        raise DataError(wrong)
    scopes = sorted({item.scope for item in items if item.id in grades})
    return {
        f"{scope}/score[{name}]": tally
        for scope in scopes
        for name, tally in _by_capability([item for item in items if item.scope == scope], grades).items()
    }


def _by_capability(items: Sequence[Item], grades: Grades) -> dict[str, Tally]:
    known = {item.id: [grade for grade in grades.get(item.id, ()) if grade is not None] for item in items}
    scores = {item_id: fmean(runs) if runs else None for item_id, runs in known.items()}
    members: dict[str, list[Item]] = {"total": list(items)}
    for item in items:
        for capability in item.group.split(","):
            members.setdefault(capability, []).append(item)
    return {name: mean(members[name], scores) for name in ["total", *sorted(members.keys() - {"total"})]}
