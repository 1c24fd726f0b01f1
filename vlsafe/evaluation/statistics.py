"""Intervals and paired tests for rates. Rates are shares in 0..1 here; metrics turn them into percent.

Sources: Wilson, JASA 22 (1927) 209; McNemar, Psychometrika 12 (1947) 153, in its exact binomial form; Newcombe,
Statistics in Medicine 17 (1998) 2635, method 10; Holm, Scandinavian Journal of Statistics 6 (1979) 65; Piaggio et al.,
on non-inferiority, JAMA 308 (2012) 2594.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Literal


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of one rate, exactly 0 or 1 at its ends; ``(0, 1)`` without any observation."""
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return low, high


def mcnemar(only_before: int, only_after: int) -> float:
    """Exact two-sided p of a paired change, from the two discordant counts; 1 when nothing changed."""
    n = only_before + only_after
    tail = term = 1  # binomial coefficients one from the other: each anew would take seconds for thousands of items
    for k in range(min(only_before, only_after)):
        term = term * (n - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / 2**n)


def paired_difference(
    both: int, only_before: int, only_after: int, neither: int, confidence: float = 0.95
) -> tuple[float, float, float]:
    """``(after - before, low, high)`` by Newcombe's method 10; ``(0, -1, 1)`` without any pair."""
    a, b, c, d = both, only_after, only_before, neither
    n = a + b + c + d
    if n == 0:
        return 0.0, -1.0, 1.0
    after, before = (a + b) / n, (a + c) / n
    after_low, after_high = wilson(a + b, n, confidence)
    before_low, before_high = wilson(a + c, n, confidence)
    phi = _phi(a, b, c, d)
    down, up = after - after_low, before_high - before
    low = math.sqrt(max(0.0, down**2 - 2 * phi * down * up + up**2))
    down, up = before - before_low, after_high - after
    high = math.sqrt(max(0.0, down**2 - 2 * phi * down * up + up**2))
    return (b - c) / n, (b - c) / n - low, (b - c) / n + high


def _phi(a: int, b: int, c: int, d: int) -> float:
    """Correlation of the two answers, corrected for continuity when it is positive, as method 10 asks."""
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    if margins == 0:
        return 0.0
    product: float = a * d - b * c
    if product > 0:
        product = max(product - (a + b + c + d) / 2, 0)
    return product / math.sqrt(margins)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values that hold for the whole family; the order of the names is kept."""
    adjusted: dict[str, float] = {}
    running = 0.0
    ordered: Sequence[str] = sorted(p_values, key=lambda name: p_values[name])
    for rank, name in enumerate(ordered):
        running = max(running, min(1.0, (len(ordered) - rank) * p_values[name]))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}


def non_inferiority(
    low: float, high: float, better: Literal["lower", "higher"], margin: float
) -> Literal["kept", "lost", "open"]:
    """What the interval of a difference (new minus old) says of "no worse by ``margin`` or more", all in one unit.

    ``kept`` when the whole interval lies on the near side of the margin, ``lost`` when all of it lies beyond, else
    ``open``: a difference that is not significant is no proof that nothing was lost.
    """
    worst, best = (low, high) if better == "higher" else (-high, -low)
    if worst > -margin:
        return "kept"
    return "lost" if best < -margin else "open"
