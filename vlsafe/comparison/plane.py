"""Runs in the plane of safety and its cost: numbered dots, with the paper's cells as rings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vlsafe.evaluation.markup import safe
from vlsafe.evaluation.report_text import mean_of, rate
from vlsafe.evaluation.svg import Scale, lettering, mark, percent_axes, svg

_FRAME = _LEFT, _RIGHT, _TOP, _BOTTOM = 46, 346, 14, 290


@dataclass(frozen=True, slots=True)
class Place:
    """Percentages, each the mean of a side's leading metric over the sets of all runs. ``ours``, or the paper's."""

    name: str
    x: float
    y: float
    ours: bool


def places(told: dict[str, Any], side: str) -> tuple[str, str, bool, list[Place]] | None:
    """``(x title, y title, whether more of x is better, places)`` of the harm side's mean against ``side``'s.

    None where the runs share no scored set of one of them. A row of the paper is placed where it has all these sets.
    """
    common = {
        name: metric
        for name, metric in told["metrics"].items()
        if all((metric["cells"].get(run) or {}).get("n") for run in told["runs"])
    }

    def mean(which: str, cells: dict[str, Any]) -> Any:
        return mean_of(
            {"metrics": {name: {"after": cell} for name, cell in cells.items()}, "directions": common}, which
        )

    first = {name: metric["cells"][told["runs"][0]] for name, metric in common.items()}
    harm, other = mean("harm", first), mean(side, first)
    if harm is None or other is None:
        return None
    names = {f"{scope}/{each.metric}" for each in (harm, other) for scope in each.scopes}
    columns = [(run, True, {name: common[name]["cells"][run] for name in names}) for run in told["runs"]]
    rows = dict.fromkeys(row for metric in told["metrics"].values() for row in metric["published"])
    columns += [
        (f"paper: {row}", False, {name: common[name]["published"][row] | {"n": 1} for name in names})
        for row in rows
        if all(row in common[name]["published"] for name in names)
    ]
    found = [Place(name, mean(side, each).after, mean("harm", each).after, ours) for name, ours, each in columns]
    return other.title, harm.title, other.better == "higher", found


def plane(x_title: str, y_title: str, right_is_better: bool, found: Sequence[Place]) -> str:
    """Discs are ours, rings the paper's, each with its number in the order of ``found``; the goal is shaded."""
    x, y = Scale(0, 100, _LEFT, _RIGHT), Scale(0, 100, _BOTTOM, _TOP)
    corner, inner = (x(100), x(75)) if right_is_better else (x(0), x(25))
    body = [f'<polygon class="goal" points="{corner:.0f},{y(25):.0f} {inner:.0f},{_BOTTOM} {corner:.0f},{_BOTTOM}"/>']
    body += percent_axes(x, y, f"{x_title}, %", f"{y_title}, %", _FRAME)
    for count, each in enumerate(found, start=1):
        dot = mark(x(each.x), y(each.y), "after" if each.ours else "before")
        left = each.x > 90
        words = lettering(
            x(each.x) + (-9 if left else 9), y(each.y) - 6, str(count), "end" if left else "start", "label"
        )
        body.append(f"<g><title>{safe(each.name)}</title>{dot}{words}</g>")
    said = "; ".join(f"{each.name}: {y_title} {rate(each.y)}, {x_title} {rate(each.x)}" for each in found)
    return svg(360, 340, f"{y_title} against {x_title}", said, "".join(body), "plane")
