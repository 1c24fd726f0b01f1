"""Before and after on the same items: paired differences with intervals and exact tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlsafe.errors import DataError
from vlsafe.evaluation.benchmarks.base import rate
from vlsafe.evaluation.folder import Folder, metric_row, read_folder
from vlsafe.evaluation.grades import score_tallies
from vlsafe.evaluation.pairs import win_tallies
from vlsafe.evaluation.scoring import outcomes, says_twice, tallies
from vlsafe.evaluation.statistics import holm, mcnemar, paired_difference
from vlsafe.evaluation.tallies import Tally, estimate, paired_tally, percent_of_second


def compare(before: Path, after: Path, judge: str | None = None) -> dict[str, dict[str, Any]]:
    """:func:`compare_folders` of two evaluation folders on disk."""
    return compare_folders(read_folder(before, judge), read_folder(after, judge))


def compare_folders(first: Folder, second: Folder) -> dict[str, dict[str, Any]]:
    """Full metric name -> ``{before, after, difference}`` of two evaluations, in percent.

    ``difference`` holds ``value`` (after minus before, in points) with its 95 % interval ``low``, ``high``; the exact
    McNemar ``p``; ``p_holm``, which allows for all metrics of the table (refusal and attack success count once);
    ``n`` pairs without an error on either side; and, for shares of yes and no, the discordant counts ``only_before``
    and ``only_after`` (other metrics have their interval and ``p`` from the paired bootstrap). Raises DataError when
    the folders were not made from the same items or by the same judge.
    """
    _check_same(first, second)
    old = outcomes(first.items, first.responses, first.verdicts, first.benchmarks)
    new = outcomes(second.items, second.responses, second.verdicts, second.benchmarks)
    old_soft = tallies(first.items, first.responses, first.verdicts, first.benchmarks)
    new_soft = tallies(second.items, second.responses, second.verdicts, second.benchmarks)
    if first.preferences and second.preferences:
        old_soft |= win_tallies(first.items, first.preferences)
        new_soft |= win_tallies(second.items, second.preferences)
    if first.grades and second.grades:
        old_soft |= score_tallies(first.items, first.grades)
        new_soft |= score_tallies(second.items, second.grades)
    unlike = sorted((old.keys() ^ new.keys()) | (old_soft.keys() ^ new_soft.keys()))
    if unlike:
        raise DataError(f"{first.path} and {second.path} differ in their metrics: {', '.join(unlike)}")
    clusters = {item.id: item.cluster or item.id for item in first.items}
    differences = {name: paired(old[name], new[name], clusters) for name in old}
    differences |= {name: paired_tally(old_soft[name], new_soft[name]) for name in old_soft}
    adjusted = holm({name: row["p"] for name, row in differences.items() if not says_twice(name, differences)})
    adjusted |= {name: adjusted[f"{name.rpartition('/')[0]}/asr"] for name in differences.keys() - adjusted.keys()}
    sides = {name: (rate(old[name].values()), rate(new[name].values())) for name in old}
    sides |= {name: (estimate(old_soft[name]), estimate(new_soft[name])) for name in old_soft}
    return {
        name: {
            "before": metric_row(metric_before),
            "after": metric_row(metric_after),
            "difference": differences[name] | {"p_holm": adjusted[name]},
        }
        for name, (metric_before, metric_after) in sorted(sides.items())
    }


def paired(
    before: Mapping[str, bool | None], after: Mapping[str, bool | None], clusters: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The paired difference of one metric from its outcomes by item id; pairs with an unknown outcome are left out.

    Where items share a cluster (a picture, a goal; by item id) they are not independent, so the interval is widened to
    that of the paired bootstrap over clusters. McNemar's ``p`` takes items as independent all the same.
    """
    pairs = {each: (before[each], after[each]) for each in before if None not in (before[each], after[each])}
    known = list(pairs.values())
    only_before, only_after = known.count((True, False)), known.count((False, True))
    value, low, high = paired_difference(
        both=known.count((True, True)),
        only_before=only_before,
        only_after=only_after,
        neither=known.count((False, False)),
    )
    difference = {
        "value": 100 * value,
        "low": 100 * low,
        "high": 100 * high,
        "p": mcnemar(only_before, only_after),
        "n": len(known),
        "only_before": only_before,
        "only_after": only_after,
    }
    if clusters is not None and len({clusters[each] for each in pairs}) < len(pairs):
        old, new = (_clustered({each: both[side] for each, both in pairs.items()}, clusters) for side in (0, 1))
        spread = paired_tally(old, new)
        difference |= {"low": min(100 * low, spread["low"]), "high": max(100 * high, spread["high"])}
    return difference


def _clustered(outcomes: Mapping[str, bool | None], clusters: Mapping[str, str]) -> Tally:
    """How often it happened, and how often it could have, by cluster."""
    counts: dict[str, tuple[float, ...]] = {}
    for each, happened in outcomes.items():
        yes, n = counts.get(clusters[each], (0.0, 0.0))
        counts[clusters[each]] = (yes + bool(happened), n + 1)
    return Tally(counts, percent_of_second, len(outcomes))


def _check_same(before: Folder, after: Folder) -> None:
    if before.judge != after.judge:
        raise DataError(
            f"{before.path} was judged by {before.judge}, {after.path} by {after.judge}; judge both by the same"
        )
    old, new = facts(before), facts(after)
    only_old, only_new = sorted(old.keys() - new.keys()), sorted(new.keys() - old.keys())
    changed = sorted(item_id for item_id in old.keys() & new.keys() if old[item_id] != new[item_id])
    problems = [
        f"{len(ids)} items {what}, the first is {ids[0]!r}"
        for ids, what in (
            (only_old, f"are only in {before.path}"),
            (only_new, f"are only in {after.path}"),
            (changed, "differ in question, picture, reference or side"),
        )
        if ids
    ]
    if problems:
        raise DataError(f"{before.path} and {after.path} are not of the same items: {'; '.join(problems)}")


def facts(folder: Folder) -> dict[str, tuple[str, ...]]:
    """What must be equal for a pair, by item id. Pictures are compared by content, since folders may lie elsewhere."""
    pictures = {response.id: response.image_sha256 for response in folder.responses}
    return {
        item.id: (item.scope, item.side, item.question, item.reference, pictures.get(item.id, ""))
        for item in folder.items
    }
