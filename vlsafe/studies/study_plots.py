"""Plots of a study as inline SVG, in the manner of :mod:`vlsafe.evaluation.plots`: no library, no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from vlsafe.evaluation.markup import safe
from vlsafe.evaluation.report_text import number
from vlsafe.evaluation.svg import Scale, lettering, line, percent_axes, svg, ticks
from vlsafe.studies.runs import Curve
from vlsafe.studies.tradeoff import Spread

_FRAME = _LEFT, _RIGHT, _TOP, _BOTTOM = 46, 346, 14, 250


@dataclass(frozen=True, slots=True)
class Dot:
    """A run in a plane of percentages; ``best`` when it is on the Pareto front."""

    label: str
    x: float
    y: float
    best: bool


def plane(dots: Sequence[Dot], x_title: str, y_title: str, right_is_better: bool) -> str:
    """Every run as a dot, those of the front filled; the corner to wish for is shaded."""
    x, y = Scale(0, 100, _LEFT, _RIGHT), Scale(0, 100, _BOTTOM, _TOP)
    corner, inner = (x(100), x(75)) if right_is_better else (x(0), x(25))
    body = [f'<polygon class="goal" points="{corner:.0f},{y(25):.0f} {inner:.0f},{_BOTTOM} {corner:.0f},{_BOTTOM}"/>']
    body += percent_axes(x, y, x_title, f"{y_title}, %", _FRAME)
    body += [_dot(x(dot.x), y(dot.y), "after" if dot.best else "before", dot.label) for dot in dots]
    said = "; ".join(f"{dot.label}: {y_title} {number(dot.y)}, {x_title} {number(dot.x)}" for dot in dots)
    return svg(360, 300, f"{y_title} against {x_title}", said, "".join(body), "plane")


def with_intervals(points: Sequence[tuple[float, Spread]], x_title: str, y_title: str) -> str:
    """A rate against a number, the mean over seeds with its interval; places are even where the number is uneven."""
    points = sorted(points, key=lambda point: point[0])
    x, y = Scale(0, max(len(points) - 1, 1), _LEFT + 14, _RIGHT - 14), Scale(0, 100, _BOTTOM, _TOP)
    body = percent_axes(None, y, x_title, f"{y_title}, %", _FRAME)
    path = " ".join(f"{x(place):.1f},{y(each.mean):.1f}" for place, (_, each) in enumerate(points))
    body.append(f'<polyline class="smooth" points="{path}"/>')
    for place, (value, each) in enumerate(points):
        if each.low is not None and each.high is not None:
            body.append(line(x(place), y(each.low), x(place), y(each.high), "whisker after"))
        body.append(_dot(x(place), y(each.mean), "after", f"{value:g}: {number(each.mean)} over {each.n} seeds"))
        body.append(lettering(x(place), _BOTTOM + 17, f"{value:g}", "middle"))
    said = "; ".join(f"{value:g}: {number(each.mean)}, {each.n} seeds" for value, each in points)
    return svg(360, 300, f"{y_title} against {x_title}", said, "".join(body), "plane")


def lines(curves: Sequence[tuple[str, Curve]], title: str) -> str:
    """One thin line for each run, and their mean at the steps that all of them have, thick."""
    values = [value for _, curve in curves for _, value in curve]
    last = max(step for _, curve in curves for step, _ in curve)
    low, high = min(values), max(values)
    low, high = (low, high) if high > low else (low - 1, high + 1)
    x, y = Scale(0, max(last, 1), _LEFT, _RIGHT), Scale(low, high, 160, 12)
    body = [line(_LEFT, y(tick), _RIGHT, y(tick), "grid") for tick in ticks(low, high)]
    body += [lettering(_LEFT - 8, y(tick) + 4, f"{tick:g}", "end") for tick in ticks(low, high)]
    body += [lettering(_LEFT, 178, "0", "start"), lettering(_RIGHT, 178, str(last), "end")]
    body.append(lettering((_LEFT + _RIGHT) / 2, 194, "step", "middle", "axis"))
    for name, curve in curves:
        path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in curve)
        body.append(f'<polyline class="raw" points="{path}"><title>{safe(name)}</title></polyline>')
    shared = set.intersection(*({step for step, _ in curve} for _, curve in curves))
    mean = [(step, fmean(dict(curve)[step] for _, curve in curves)) for step in sorted(shared)]
    path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in mean)
    body.append(f'<polyline class="smooth" points="{path}"/>')
    said = f"mean of {len(curves)} runs from {mean[0][1]:.2f} to {mean[-1][1]:.2f}" if mean else f"{len(curves)} runs"
    return svg(360, 200, title, said, "".join(body), "curve")


def parallel(axes: Sequence[str], rows: Sequence[tuple[str, Sequence[float | str], bool]]) -> str:
    """Parallel coordinates: a line a run over all axes; numbers by size, words by their order; the front is thick."""
    width, top, bottom = max(360, 130 * len(axes)), 40, 220
    x = Scale(0, max(len(axes) - 1, 1), 75, width - 75)
    body, scales = [], []
    for place, name in enumerate(axes):
        scale, marks = _axis([values[place] for _, values, _ in rows], bottom, top)
        scales.append(scale)
        body.append(line(x(place), top, x(place), bottom, "grid"))
        body.append(lettering(x(place), 20 if place % 2 else 32, name, "middle", "axis"))
        body += [lettering(x(place) + 5, level + 4, words, "start") for words, level in marks]
    for label, values, best in sorted(rows, key=lambda row: row[2]):
        path = " ".join(f"{x(place):.1f},{scales[place][value]:.1f}" for place, value in enumerate(values))
        kind = "smooth" if best else "raw"
        body.append(f'<polyline class="{kind}" points="{path}"><title>{safe(label)}</title></polyline>')
    said = "; ".join(f"{label}: " + ", ".join(map(str, values)) for label, values, _ in rows)
    return svg(width, 240, "Parallel coordinates of all runs", said, "".join(body), "parallel")


def _axis(values: Sequence[float | str], bottom: float, top: float) -> tuple[dict, list[tuple[str, float]]]:
    """Value -> height, and the words beside the axis with their heights."""
    numbers = [value for value in values if not isinstance(value, str)]
    if len(numbers) == len(values) and max(numbers) > min(numbers):
        scale = Scale(min(numbers), max(numbers), bottom, top)
        return {v: scale(v) for v in numbers}, [(f"{v:.4g}", scale(v)) for v in (min(numbers), max(numbers))]
    kinds = sorted(dict.fromkeys(values), key=lambda kind: (0, kind, 0) if isinstance(kind, str) else (1, "", kind))
    place = Scale(0, max(len(kinds) - 1, 1), bottom, top)
    heights = {kind: place(index) for index, kind in enumerate(kinds)}
    return heights, [(f"{k:.4g}" if not isinstance(k, str) else k[-14:], height) for k, height in heights.items()]


def _dot(x: float, y: float, kind: str, label: str) -> str:
    circle = f'<circle class="mark {kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'
    return f"<g><title>{safe(label)}</title>{circle}</g>"
