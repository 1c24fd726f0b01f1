"""How far two judges, or a judge and people, agree beyond chance.

Cohen's kappa (Educational and Psychological Measurement 20 (1960) 37) over the labels as they are, and over the two
sides of the question that rates are made of: refused, at least in part, or not. The interval is a percentile bootstrap
over items, seeded; kappa depends on the table of label pairs alone, so whole tables are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from vlsafe.errors import DataError
from vlsafe.evaluation.benchmarks.base import REFUSED_IN_PART
from vlsafe.evaluation.folder import judges_of, read_folder
from vlsafe.evaluation.records import Label, numbered_rows

RESAMPLES = 10_000
HUMAN = "human.jsonl"
"""In an evaluation's folder: labels by people, rows of ``id`` and ``label``."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """``agreed`` in percent of ``n`` items; ``kappa`` with its 95 % interval, None where both only ever say one label.

    ``n_error`` items are left out because one of the two gave none.
    """

    first: str
    second: str
    over: str
    n: int
    n_error: int
    agreed: float | None
    kappa: float | None
    low: float | None
    high: float | None


def agreements(first: str, one: Mapping[str, str], second: str, other: Mapping[str, str]) -> list[Agreement]:
    """Over ``labels`` and over ``refused or not``, of the items that both have; labels by item id.

    Raises DataError when they share no item.
    """
    shared = [item for item in one if item in other]
    if not shared:
        raise DataError(f"{first} and {second} have no item in common; are their ids those of the same answers?")
    pairs = [(one[item], other[item]) for item in shared if "error" not in (one[item], other[item])]
    sides = [(str(a in REFUSED_IN_PART), str(b in REFUSED_IN_PART)) for a, b in pairs]
    failed = len(shared) - len(pairs)
    kinds = {"labels": pairs, "refused or not": sides}
    return [_agreement(first, second, over, each, failed) for over, each in kinds.items()]


def _agreement(first: str, second: str, over: str, pairs: list[tuple[str, str]], failed: int) -> Agreement:
    labels = sorted({label for pair in pairs for label in pair})
    table = np.zeros((len(labels), len(labels)))
    for a, b in pairs:
        table[labels.index(a), labels.index(b)] += 1
    if not pairs:
        return Agreement(first, second, over, 0, failed, None, None, None, None)
    drawn = np.random.default_rng(0).multinomial(len(pairs), table.ravel() / len(pairs), size=RESAMPLES)
    resampled = kappa(drawn.reshape(-1, *table.shape))
    low, high = np.nanquantile(resampled, [0.025, 0.975]) if not np.isnan(resampled).all() else (math.nan, math.nan)
    numbers = [float(kappa(table)), float(low), float(high)]
    value, low_, high_ = (None if math.isnan(number) else number for number in numbers)
    return Agreement(first, second, over, len(pairs), failed, 100 * table.trace() / len(pairs), value, low_, high_)


def kappa(tables: NDArray[Any]) -> NDArray[np.float64]:
    """Cohen's kappa of counts ``[..., first's label, second's label]``; NaN where chance alone agrees always."""
    n = tables.sum((-2, -1))
    observed = np.trace(tables, axis1=-2, axis2=-1) / n
    expected = (tables.sum(-1) * tables.sum(-2)).sum(-1) / n**2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(expected < 1, (observed - expected) / (1 - expected), np.nan))


def human_labels(path: Path) -> dict[str, str]:
    """Item id -> label, from rows of ``id`` and ``label``. Raises DataError naming every line that is wrong."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; labels by people are JSON Lines of id and label")
    labels: dict[str, str] = {}
    problems: list[str] = []
    for where, row in numbered_rows(path, problems):
        if "id" not in row or row.get("label") not in get_args(Label):
            problems.append(f"{where}: needs an id and a label of {', '.join(get_args(Label))}")
        elif labels.setdefault(str(row["id"]), row["label"]) != row["label"]:
            problems.append(f"{where}: id {row['id']!r} has another label before; settle on one")
    if problems:
        raise DataError(problems)
    return labels


def folder_agreements(folder: Path) -> list[dict[str, Any]]:
    """Every two judges of an evaluation's folder, and each against ``human.jsonl`` where there is one, for a report."""
    labels: dict[str, Mapping[str, str]] = {
        name: {verdict.id: verdict.label for verdict in read_folder(folder, name).verdicts}
        for name in judges_of(folder)
    }
    if (folder / HUMAN).exists():
        labels["people"] = human_labels(folder / HUMAN)
    named = [(name, each) for name, each in labels.items() if each]  # a retrained model leaves old verdicts without use
    return [asdict(each) for (a, one), (b, other) in combinations(named, 2) for each in agreements(a, one, b, other)]


def told(agreement: Agreement) -> str:
    """One line for standard output."""
    if agreement.kappa is None or agreement.low is None or agreement.high is None:
        beyond = "kappa undefined, one label only"
    else:
        beyond = f"kappa {agreement.kappa:.3f} [{agreement.low:.3f}, {agreement.high:.3f}]"
    agreed = "-" if agreement.agreed is None else f"{agreement.agreed:.1f} % agree"
    failed = f", {agreement.n_error} errors left out" if agreement.n_error else ""
    return f"{agreement.first} and {agreement.second}, {agreement.over}: {agreed}, {beyond}, n = {agreement.n}{failed}"
