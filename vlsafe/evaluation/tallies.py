"""Metrics that are no share of yes and no: soft scores, F1, points of two kinds. Their intervals are bootstrapped.

What is resampled is a *cluster*, the items that share a picture or a goal, because they are not independent. The
resamples are seeded, so that the same records give the same interval. Source: Efron and Tibshirani, An Introduction to
the Bootstrap (1993), chapters 13 (percentile interval) and 16 (tests).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlsafe.errors import DataError
from vlsafe.evaluation.records import Item, Metric
from vlsafe.evaluation.statistics import wilson

Sums = NDArray[np.float64]

RESAMPLES = 10_000
_CELLS = 4_000_000
"""Random counts drawn at once: 32 MB."""


@dataclass(frozen=True, slots=True)
class Tally:
    """``counts``: cluster -> numbers to be summed over clusters. ``value``: sums [..., k] -> percent [...]; NaN where
    it is undefined. ``n`` items were scored, ``n_error`` could not be."""

    counts: Mapping[str, tuple[float, ...]]
    value: Callable[[Sums], Sums]
    n: int
    n_error: int = 0


def mean(items: Sequence[Item], scores: Mapping[str, float | None]) -> Tally:
    """The mean of a score from 0 to 1 by item id, None where an error leaves it unknown, over clusters of items."""
    counts: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    known = 0
    for item in items:
        score = scores[item.id]
        if score is not None:
            known += 1
            counts[item.cluster or item.id][0] += score
            counts[item.cluster or item.id][1] += 1
    return Tally({key: tuple(each) for key, each in counts.items()}, percent_of_second, known, len(items) - known)


def percent_of_second(sums: Sums) -> Sums:
    """100 x first / second."""
    return 100 * ratio(sums[..., 0], sums[..., 1])


def ratio(top: Sums, bottom: Sums) -> Sums:
    """Elementwise; NaN where ``bottom`` is 0."""
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=np.asarray(bottom) != 0)


def estimate(tally: Tally) -> Metric:
    """The value with its 95 % percentile interval; NaN and 0..100 where nothing is known.

    At the very ends, where every resample is alike, Wilson's interval of so many clusters stands in.
    """
    if not tally.counts:
        return Metric(math.nan, 0.0, 100.0, 0, tally.n_error)
    matrix = np.array(list(tally.counts.values()), dtype=float)
    value = float(tally.value(matrix.sum(0)))
    if math.isnan(value):
        return Metric(value, 0.0, 100.0, tally.n, tally.n_error)
    low, high = _interval(np.concatenate([tally.value(sums) for (sums,) in _resampled(matrix)]))
    size = len(matrix)
    if value in (0.0, 100.0):
        low, high = (100 * bound for bound in wilson(size if value else 0, size))
    return Metric(value, min(low, value), max(high, value), tally.n, tally.n_error)


def paired_tally(before: Tally, after: Tally) -> dict[str, Any]:
    """After minus before on the same clusters, in points: ``value, low, high``, the two-sided bootstrap ``p`` and
    ``n`` clusters. Raises DataError when the two have no cluster in common."""
    shared = [key for key in before.counts if key in after.counts]
    if not shared:
        raise DataError("before and after have no scored item in common; evaluate both on the same items")
    old = np.array([before.counts[key] for key in shared], dtype=float)
    new = np.array([after.counts[key] for key in shared], dtype=float)
    value = float(after.value(new.sum(0)) - before.value(old.sum(0)))
    differences = np.concatenate([after.value(b) - before.value(a) for a, b in _resampled(old, new)])
    low, high = _interval(differences)
    below, above = float(np.mean(differences <= 0)), float(np.mean(differences >= 0))
    p = min(1.0, 2 * max(min(below, above), 1 / RESAMPLES))
    return {"value": value, "low": min(low, value), "high": max(high, value), "p": p, "n": len(shared)}


def _interval(values: Sums) -> tuple[float, float]:
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def _resampled(*matrices: Sums) -> Iterator[tuple[Sums, ...]]:
    """Sums [chunk, k] of resampled clusters, the same clusters of every matrix [clusters, k]."""
    size = len(matrices[0])
    generator = np.random.default_rng(0)
    chunk = max(1, _CELLS // size)
    for start in range(0, RESAMPLES, chunk):
        drawn = generator.multinomial(size, np.full(size, 1 / size), min(chunk, RESAMPLES - start)).astype(float)
        yield tuple(drawn @ matrix for matrix in matrices)
