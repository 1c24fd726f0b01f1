"""Plots as inline SVG strings: no library, no script, colours from the page's style sheet.

Every plot carries a title and a description for screen readers; before and after differ by shape (a ring and a
disc) as well as by colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from vlsafe.evaluation.markup import safe
from vlsafe.evaluation.report_text import count, number, rate
from vlsafe.evaluation.svg import Scale, lettering, line, mark, percent_axes, svg, ticks

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Move:
    """Where a run stands in a plane of percentages, after and (if measured) before."""

    label: str
    after: Point
    before: Point | None = None


def strip(name: str, after: dict[str, Any], before: dict[str, Any] | None) -> str:
    """One metric on a line from 0 to 100 %: ring = before, disc = after, whiskers = 95 % intervals."""
    width, left, height = 200, 10, 40
    x = Scale(0, 100, left, width - left)
    marks = [line(x(tick), 4, x(tick), height - 4, "grid") for tick in (0, 50, 100)]
    marks.append(line(x(0), height / 2, x(100), height / 2, "grid"))
    words = []
    for kind, side, y in (("before", before, 11), ("after", after, 29)):
        if side and side["n"]:
            marks.append(line(x(side["low"]), y, x(side["high"]), y, f"whisker {kind}"))
            marks.append(mark(x(side["value"]), y, kind))
            words.append(f"{kind} {number(side['value'])} %, {number(side['low'])} to {number(side['high'])}")
    return svg(width, height, name, "; ".join(words) or "no scored item", "".join(marks), "strip")


def tradeoff(moves: Sequence[Move], x_title: str, y_title: str, right_is_better: bool) -> str:
    """A plane of two percentages: an arrow from before to after for the first move, small marks for the others.

    ``y`` is better when lower; the corner to wish for is shaded.
    """
    width, height, left, right, top, bottom = 360, 340, 46, 346, 14, 290
    x, y = Scale(0, 100, left, right), Scale(0, 100, bottom, top)
    corner = x(100) if right_is_better else x(0)
    inner = corner + (-1 if right_is_better else 1) * (x(25) - x(0))
    goal = f"{corner:.0f},{y(25):.0f} {inner:.0f},{bottom} {corner:.0f},{bottom}"
    body = [f'<polygon class="goal" points="{goal}"/>']
    body += percent_axes(x, y, f"{x_title}, %", f"{y_title}, %", (left, right, top, bottom))
    body += [f'<g class="small">{_marks(move, x, y, 3)}</g>' for move in moves[1:]]
    body.append(_arrow(moves[0], x, y))
    body.append(_labels(moves[0], x, y))
    said = "; ".join(_said(move, x_title, y_title) for move in moves)
    best = f"Best is low {y_title} and {'high' if right_is_better else 'low'} {x_title}."
    return svg(width, height, f"{y_title} against {x_title}", f"{said}. {best}", "".join(body), "plane")


def curve(
    title: str, steps: Sequence[int], values: Sequence[float | None], low: float, high: float, window: int
) -> str:
    """A loss curve: thin = as logged, thick = mean over ``window`` logged values around each; 300 points at most."""
    width, height, left, right, top, bottom = 360, 200, 40, 346, 12, 160
    x, y = Scale(steps[0], max(steps[-1], steps[0] + 1), left, right), Scale(low, high, bottom, top)
    logged = [(float(step), value) for step, value in zip(steps, values, strict=True) if value is not None]
    smooth = _smooth(logged, window)
    body = []
    for tick in ticks(low, high):
        body += [line(left, y(tick), right, y(tick), "grid"), lettering(left - 8, y(tick) + 4, f"{tick:g}", "end")]
    body += [
        lettering(left, bottom + 18, count(steps[0]), "start"),
        lettering(right, bottom + 18, count(steps[-1]), "end"),
    ]
    body.append(lettering((left + right) / 2, bottom + 34, "step", "middle", "axis"))
    for points, kind in ((logged, "raw"), (smooth, "smooth")):
        path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in _thinned(points, 300))
        body.append(f'<polyline class="{kind}" points="{path}"/>')
    if len(logged) == 1:
        body.append(mark(x(logged[0][0]), y(logged[0][1]), "after"))
    said = f"{len(logged)} values; smoothed from {smooth[0][1]:.2f} to {smooth[-1][1]:.2f}" if smooth else "no value"
    return svg(width, height, f"Loss by step: {title}", said, "".join(body), "curve")


def bar(share: float, title: str) -> str:
    """A bar as wide as its column times ``share`` (0 to 1); the caller writes the number beside it."""
    filled = f'<rect class="bar" width="{share * 100:.2f}" height="10"/>' if share else ""
    return (
        '<svg class="barline" viewBox="0 0 100 10" preserveAspectRatio="none" role="img">'
        f'<title>{safe(title)}</title><rect class="track" width="100" height="10"/>{filled}</svg>'
    )


def _marks(move: Move, x: Scale, y: Scale, radius: float) -> str:
    """A ring for before and a disc for after, with a title that names them."""
    before = "" if move.before is None else mark(x(move.before[0]), y(move.before[1]), "before", radius)
    after = mark(x(move.after[0]), y(move.after[1]), "after", radius)
    return f"<g><title>{safe(move.label)}</title>{before}{after}</g>"


def _arrow(move: Move, x: Scale, y: Scale, radius: float = 8) -> str:
    """A move's marks with an arrow between them, which stops short of the disc; none where they touch."""
    marks = _marks(move, x, y, radius)
    if move.before is None:
        return marks
    start, end = complex(x(move.before[0]), y(move.before[1])), complex(x(move.after[0]), y(move.after[1]))
    if abs(end - start) < 3 * radius:
        return marks
    along = (end - start) / abs(end - start)
    tip = end - along * (radius + 4)
    base, tail = tip - along * 10, start + along * radius
    corners = (tip, base + along * 5j, base - along * 5j)
    head = " ".join(f"{corner.real:.1f},{corner.imag:.1f}" for corner in corners)
    return f'{line(tail.real, tail.imag, base.real, base.imag, "arrow")}<polygon class="head" points="{head}"/>{marks}'


def _labels(move: Move, x: Scale, y: Scale) -> str:
    """The words beside a move's ends, on the side that has room; one above the other where the ends are close."""
    ends = [("after", move.after)] if move.before is None else [("before", move.before), ("after", move.after)]
    ends.sort(key=lambda end: end[1][1], reverse=True)
    levels = [min(max(y(at[1]) + 5, y(100) + 12), y(0) - 4) for _, at in ends]
    if len(ends) == 2 and levels[1] - levels[0] < 18:
        middle = min(max(sum(levels) / 2, y(100) + 21), y(0) - 13)
        levels = [middle - 9, middle + 9]
    labels = []
    for (when, at), level in zip(ends, levels, strict=True):
        offset, anchor = (15, "start") if at[0] <= 60 else (-15, "end")
        shown = rate(at[1]) if move.before is None else f"{when} {rate(at[1])}"
        labels.append(lettering(x(at[0]) + offset, level, shown, anchor, f"label {when}"))
    return "".join(labels)


def _said(move: Move, x_title: str, y_title: str) -> str:
    places = [] if move.before is None else [("before", move.before)]
    places.append(("after", move.after))
    return f"{move.label}: " + ", ".join(
        f"{when} {y_title} {rate(at[1])} at {x_title} {rate(at[0])}" for when, at in places
    )


def _smooth(points: Sequence[Point], window: int) -> list[Point]:
    """The mean of the ``window`` values around each point, fewer at the ends."""
    sums = [0.0, *accumulate(value for _, value in points)]
    half = window // 2
    ends = [(max(0, index - half), min(len(points), index + half + 1)) for index in range(len(points))]
    return [
        (step, (sums[last] - sums[first]) / (last - first))
        for (step, _), (first, last) in zip(points, ends, strict=True)
    ]


def _thinned(points: Sequence[Point], most: int) -> Sequence[Point]:
    """Every k-th point, the last one always kept."""
    every = -(-len(points) // most) if points else 1
    kept = list(points[::every])
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]
