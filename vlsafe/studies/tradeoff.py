"""What a study says: the Pareto front, means with intervals over seeds, the recommended setting, what predicts ASR."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from vlsafe.studies.runs import Run

_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""97.5 % points of Student's t for 1 to 15 degrees of freedom (Biometrika 6 (1908) 1); beyond that 2.131 is too wide
by less than a tenth."""

RULE = (
    "the setting with the highest mean objective over its seeds (the harmonic mean of 100 - ASR, 100 - over-refusal "
    "and the retained utility); of equal ones, the one with the lowest over-refusal"
)


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean over ``n`` seeds with its 95 % interval, cut to 0 and 100; the interval is None for a single seed."""

    mean: float
    low: float | None
    high: float | None
    n: int


def spread(values: Sequence[float]) -> Spread:
    """Student's interval of a mean of percentages."""
    n, mean = len(values), fmean(values)
    if n == 1:
        return Spread(mean, None, None, n)
    half = _T[min(n - 1, len(_T)) - 1] * stdev(values) / math.sqrt(n)
    return Spread(mean, max(0.0, mean - half), min(100.0, mean + half), n)


def front(runs: Sequence[Run]) -> list[Run]:
    """The runs that no other run beats: at least as good in ASR, over-refusal and utility, and better in one."""
    return [run for run in runs if not any(_beats(other, run) for other in runs)]


def recommended(grouped: Sequence[Sequence[Run]]) -> Sequence[Run] | None:
    """By :data:`RULE`; None when no setting has an objective for all of its seeds."""
    known = [group for group in grouped if all(run.objective is not None for run in group)]
    if not known:
        return None
    return max(known, key=lambda group: (_mean_objective(group), -fmean(run.over_refusal for run in group)))


def checkpoints(runs: Sequence[Run]) -> list[tuple[float, float]]:
    """``(harm-side margin, generated ASR)``: at the end of each run whose last step left time for the margin, with the
    ASR of its whole evaluation, and at each step before at which both were probed."""
    pairs = []
    for run in runs:
        margins = run.curves.get("margin/harm", [])
        steps = run.report.get("curves", {}).get("step")
        if margins and steps and margins[-1][0] > steps[-1]:
            pairs.append((margins[-1][1], run.asr))
            margins = margins[:-1]
        rates = [dict(points) for name, points in run.curves.items() if name.startswith("probe/") and "/asr" in name]
        for step, margin in margins:
            values = [curve[step] for curve in rates if step in curve]
            if values:
                pairs.append((margin, fmean(values)))
    return pairs


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's, ties at their mean rank; None with fewer than three pairs or without any variation."""
    import torch  # here, so that no verb but a study with pairs waits for it
    from torchmetrics.functional.regression import spearman_corrcoef

    first, second = zip(*pairs, strict=True) if pairs else ((), ())
    if len(pairs) < 3 or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    return float(spearman_corrcoef(torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64)))


def _mean_objective(group: Sequence[Run]) -> float:
    return fmean(run.objective for run in group if run.objective is not None)


def _beats(one: Run, other: Run) -> bool:
    mine, theirs = _costs(one), _costs(other)
    return mine != theirs and all(a <= b for a, b in zip(mine, theirs, strict=True))


def _costs(run: Run) -> tuple[float, float, float]:
    return run.asr, run.over_refusal, -(run.utility or 0.0)
