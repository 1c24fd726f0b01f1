"""What a comparison says, as one dictionary that every format is written from.

Percentages and points throughout::

    judge, baseline (a run's name), margin (points), family (how many tests Holm's p allows for), origin (of the paper)
    runs        [name]
    metrics     {name: {side, better, cells: {run: CELL}, published: {row: CELL}, differences: {run: DIFFERENCE}}}, note
                where the number is not the authors'
                CELL = {value, low, high, n, n_error} or, where the number may not be shown, {withheld: why};
                the paper's have {value, low, high, n, table, doubt}, interval and n None where it was no share
                DIFFERENCE = {value, low, high, p, p_holm, n, claim} from the baseline on the same items
    unlike      {run: {condition: what it was in the baseline and here}}, of answers to the same items
    unpaired    {run: why it has no differences, or which benchmarks lack them}
    forgetting  {run: rows of vlsafe.studies.forgetting}
    flips       {run: [{metric, id, side, change, question, before, after}]}, texts cut
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from vlsafe.comparison.runs import Evaluated, shared
from vlsafe.errors import ConfigError
from vlsafe.evaluation.compare import compare_folders
from vlsafe.evaluation.conditions import unlike_conditions
from vlsafe.evaluation.published import origin, published
from vlsafe.evaluation.report_examples import cut_for
from vlsafe.evaluation.scoring import says_twice
from vlsafe.evaluation.statistics import holm, non_inferiority
from vlsafe.studies.forgetting import flips, forgetting

MARGIN = 1.0
"""Points of utility whose loss would count, unless the user says another number."""

WITHHELD = "no harm-side number without a benign-side number of the same run"


def comparison(
    runs: Sequence[Evaluated], baseline: str | None = None, rows: Sequence[str] = (), margin: float = MARGIN
) -> dict[str, Any]:
    """See the module's words. ``baseline`` is a run's name, by default the first; ``rows`` are the paper's.

    Raises ConfigError for an unknown run or row, or a margin that is not positive.
    """
    if margin <= 0:
        raise ConfigError(f"the margin is {margin} points; a loss of nothing cannot be proven, give more than 0")
    by_name = {run.name: run for run in runs}
    first = by_name.get(baseline or runs[0].name)
    if first is None:
        raise ConfigError(f"no run is named {baseline!r}; they are: {', '.join(by_name)}")
    told: dict[str, Any] = {"unpaired": {}, "unlike": {}, "forgetting": {}, "flips": {}}
    differences: dict[str, dict[str, Any]] = {}
    for run in runs:
        if run is not first:
            differences[run.name] = _against(first, run, told)
    adjusted = holm({f"{run}\n{name}": row["p"] for run, each in differences.items() for name, row in each.items()})
    every = {name: way for run in runs for name, way in run.directions.items()}
    ways = {name: way for name, way in every.items() if not says_twice(name, every)}
    cells = {run.name: _shown(run) for run in runs}
    papers = {row: published(row, first.folder.judge) for row in rows}
    metrics = {}
    for name, way in sorted(ways.items(), key=lambda pair: (_SIDES.index(pair[1]["side"]), pair[0])):
        metrics[name] = {
            **way,
            "cells": {run: each[name] for run, each in cells.items() if name in each},
            "published": {row: asdict(each[name]) for row, each in papers.items() if name in each},
            "differences": {
                run: each[name] | {"p_holm": adjusted[f"{run}\n{name}"], "claim": _claim(each[name], way, margin)}
                for run, each in differences.items()
                if name in each
            },
        }
    facts = {"judge": first.folder.judge, "baseline": first.name, "margin": margin, "family": len(adjusted)}
    return {**facts, "origin": origin(), "runs": list(by_name), "metrics": metrics, **told}


_SIDES = ("harm", "benign", "utility")


def _shown(run: Evaluated) -> dict[str, dict[str, Any]]:
    """The run's cells; a model that refuses everything has no attack success, so that number never stands alone."""
    benign = any(run.metrics[name]["n"] for name, way in run.directions.items() if way["side"] == "benign")
    return {
        name: {"withheld": WITHHELD} if run.directions[name]["side"] == "harm" and not benign else row
        for name, row in run.metrics.items()
    }


def _against(first: Evaluated, run: Evaluated, told: dict[str, Any]) -> dict[str, Any]:
    pair = shared(first, run)
    if pair is None:
        told["unpaired"][run.name] = f"has no items in common with {first.name}, or only one side of them"
        return {}
    left = sorted(
        {item.benchmark for each in (first, run) for item in each.folder.items} - {i.benchmark for i in pair[0].items}
    )
    if left:
        told["unpaired"][run.name] = f"has other items than {first.name}, or none, of {', '.join(left)}"
    told["unlike"][run.name] = unlike_conditions(pair[0].responses, pair[1].responses)
    rows = compare_folders(*pair)
    told["forgetting"][run.name] = forgetting(*pair)
    told["flips"][run.name] = [_cut(flip) for flip in flips(*pair)]
    hidden = {name for each in (first, run) for name, cell in _shown(each).items() if "withheld" in cell}
    shown = {name: row["difference"] for name, row in rows.items() if not says_twice(name, rows)}
    return {name: row for name, row in shown.items() if name not in hidden and row["n"]}


def _claim(difference: dict[str, Any], way: dict[str, Any], margin: float) -> str:
    """Of utility alone: on the other sides any change counts."""
    if way["side"] != "utility":
        return ""
    return non_inferiority(difference["low"], difference["high"], way["better"], margin)


def _cut(flip: dict[str, Any]) -> dict[str, Any]:
    """Texts as short as a report shows them: what is written down may be passed on."""
    sides = {when: flip[when] | {"text": cut_for(flip["side"], flip[when]["text"])} for when in ("before", "after")}
    return flip | {"question": cut_for(flip["side"], flip["question"])} | sides
