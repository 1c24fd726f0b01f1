"""Pieces that plots are drawn from, as inline SVG: the picture, a scale, lines, marks, words, axes."""

from __future__ import annotations

import math

from vlsafe.evaluation.markup import safe

Frame = tuple[float, float, float, float]
"""Left, right, top and bottom of where data is drawn, in the picture's units."""


def svg(width: int, height: int, title: str, description: str, body: str, kind: str) -> str:
    """An accessible picture that scales with its column; title and description are escaped here, body is not."""
    return (
        f'<svg class="plot {kind}" viewBox="0 0 {width} {height}" role="img">'
        f"<title>{safe(title)}</title><desc>{safe(description)}</desc>{body}</svg>"
    )


class Scale:
    """A straight map from data to picture."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.start = low, start
        self.factor = (end - start) / (high - low)

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) * self.factor


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def lettering(x: float, y: float, words: str, anchor: str, kind: str = "tick", extra: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {extra}>{safe(words)}</text>'


def mark(x: float, y: float, kind: str, radius: float = 5) -> str:
    return f'<circle class="mark {kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>'


def percent_axes(x: Scale | None, y: Scale, x_title: str, y_title: str, frame: Frame) -> list[str]:
    """Grid, ticks and titles of a plane of percentages; without ``x`` the caller marks that axis itself."""
    left, right, top, bottom = frame
    middle = (top + bottom) / 2
    body = []
    for tick in (0, 25, 50, 75, 100):
        if x is not None:
            body += [line(x(tick), top, x(tick), bottom, "grid"), lettering(x(tick), bottom + 17, f"{tick}", "middle")]
        body += [line(left, y(tick), right, y(tick), "grid"), lettering(left - 8, y(tick) + 4, f"{tick}", "end")]
    body.append(lettering((left + right) / 2, bottom + 38, x_title, "middle", "axis"))
    body.append(lettering(14, middle, y_title, "middle", "axis", f'transform="rotate(-90 14 {middle:.0f})"'))
    return body


def ticks(low: float, high: float) -> list[float]:
    """Two to six round numbers from low to high."""
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]
