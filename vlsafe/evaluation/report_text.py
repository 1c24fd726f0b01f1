"""The words of a run report: numbers as text, means of sets, and the one sentence that sums the run up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vlsafe.evaluation.conditions import told_unlike

SIDES = ("harm", "benign", "utility")

SIDE_TITLES = {
    "harm": "Harm side: should be refused",
    "benign": "Benign side: should be answered",
    "utility": "Utility: has a right answer",
}

SIDE_WORDS = {
    "harm": "Requests for something harmful. Attack success (asr) is the share the model did not refuse.",
    "benign": "Harmless requests, some of them worded to look risky. Over-refusal is the share the model refused all "
    "the same. A model that refuses everything has no attack success and no use, so read these rows with those above.",
    "utility": "Ordinary questions whose right answer is known: what the model is still good for.",
}

INTERVAL_WORDS = (
    "Numbers in brackets are 95 % intervals: over many evaluations with as many other items of the same kind, 95 of "
    "100 such intervals hold the true rate. Few items make them wide."
)
P_WORDS = (
    "A difference is called not clear when its interval holds zero. p is the chance of a change at least as lopsided "
    "had tuning made no difference, by McNemar's exact test, which pairs each item with itself. One small p among many "
    "rows is no surprise; Holm's, where shown, allows for the number of rows."
)
N_WORDS = "n counts the scored items; n_error those that could not be scored, which are in no percentage."

_METRIC_TITLES = {"asr": "Attack success", "over_refusal": "Over-refusal"}
# Which metric stands for its side in the headline, where a side holds several kinds.
_PREFERRED = {"harm": "asr", "benign": "over_refusal", "utility": "accuracy"}


@dataclass(frozen=True, slots=True)
class Mean:
    """One side of a run in one number: the unweighted mean of a metric over its sets, in percent.

    ``before`` is None when any of the sets has no before side: a mean over other sets would not compare.
    """

    side: str
    metric: str
    scopes: tuple[str, ...]
    before: float | None
    after: float
    better: str

    @property
    def title(self) -> str:
        """``Attack success``; a single set of unnamed kind carries its own name: ``easy_vqa accuracy``."""
        if self.metric in _METRIC_TITLES:
            return _METRIC_TITLES[self.metric]
        words = self.metric.replace("_", " ")
        return f"{self.scopes[0]} {words}" if len(self.scopes) == 1 else words.capitalize()

    @property
    def sets(self) -> str:
        """What the number is taken over, in words."""
        if len(self.scopes) == 1:
            return self.scopes[0]
        return f"mean of {len(self.scopes)} {self.side}-side sets"


def split_name(name: str) -> tuple[str, str]:
    """``vlguard[unsafe]/asr`` -> (``vlguard[unsafe]``, ``asr``)."""
    scope, _, metric = name.rpartition("/")
    return scope, metric


def names_of(report: dict[str, Any], side: str) -> list[str]:
    """The metric names of one side, in the report's order."""
    return [name for name in report["metrics"] if report["directions"][name]["side"] == side]


def paired(report: dict[str, Any]) -> bool:
    """Whether any metric was measured before tuning as well."""
    return any(row.get("before") for row in report["metrics"].values())


def mean_of(report: dict[str, Any], side: str) -> Mean | None:
    """The side's leading metric as a mean of sets; None when the side has no scored set."""
    names = [name for name in names_of(report, side) if report["metrics"][name]["after"]["n"]]
    if not names:
        return None
    kinds = [split_name(name)[1] for name in names]
    kind = _PREFERRED[side] if _PREFERRED[side] in kinds else kinds[0]
    names = [name for name in names if split_name(name)[1] == kind]
    rows = [report["metrics"][name] for name in names]
    comparable = all(row.get("before") and row["before"]["n"] for row in rows)
    return Mean(
        side=side,
        metric=kind,
        scopes=tuple(split_name(name)[0] for name in names),
        before=_mean([row["before"]["value"] for row in rows]) if comparable else None,
        after=_mean([row["after"]["value"] for row in rows]),
        better=report["directions"][names[0]]["better"],
    )


def means(report: dict[str, Any]) -> list[Mean]:
    """The leading mean of each side that has one: harm, benign, utility."""
    found = (mean_of(report, side) for side in SIDES)
    return [mean for mean in found if mean is not None]


def marks(report: dict[str, Any]) -> dict[str, str]:
    """Note on metrics -> the mark that stands beside their names: ``*``, ``**`` ..."""
    notes = dict.fromkeys(way["note"] for way in report["directions"].values() if "note" in way)
    return {note: "*" * count for count, note in enumerate(notes, start=1)}


def told_apart(report: dict[str, Any]) -> list[str]:
    """One line where both sides were not measured under the same conditions."""
    told = told_unlike(report["unlike"])
    return [f"Before and after were measured under {told}; a difference may come of that alone."] if told else []


def headline(report: dict[str, Any]) -> str:
    """One sentence computed from the numbers, each mean of sets named as one."""
    parts: list[str] = []
    for mean in means(report):
        named = mean.title.startswith(mean.scopes[0])  # the name of a set keeps its capitals
        title = mean.title if named or not parts else mean.title[0].lower() + mean.title[1:]
        over = f" on average over {len(mean.scopes)} {mean.side}-side sets" if len(mean.scopes) > 1 else ""
        if mean.before is None:
            parts.append(f"{title} is {rate(mean.after)}{over}")
        elif rate(mean.before) == rate(mean.after):
            parts.append(f"{title} stayed at {rate(mean.after)}{over}")
        else:
            verb = "fell" if mean.after < mean.before else "rose"
            parts.append(f"{title} {verb} from {rate(mean.before)} to {rate(mean.after)}{over}")
    if not parts:
        return "No item could be scored."
    return "; ".join(parts) + "."


def rate(value: float) -> str:
    """A percentage for running text, with a decimal where it is not zero and a space that does not break: ``92 %``."""
    return f"{number(value).removesuffix('.0')}\u00a0%"


def number(value: float, signed: bool = False) -> str:
    """One decimal, with a real minus sign: ``−88.0``."""
    rounded = round(value, 1) + 0.0  # + 0.0 turns -0.0 into 0.0
    shown = f"{rounded:+.1f}" if signed and rounded else f"{rounded:.1f}"
    return shown.replace("-", "−")


def interval(side: dict[str, Any], signed: bool = False) -> str:
    return f"[{number(side['low'], signed)}, {number(side['high'], signed)}]"


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def change(difference: dict[str, Any], better: str) -> str:
    """``better``, ``worse`` or ``not clear``: the last when the interval of the difference holds zero."""
    if difference["low"] <= 0 <= difference["high"]:
        return "not clear"
    return "better" if (difference["value"] < 0) == (better == "lower") else "worse"


def duration(seconds: float) -> str:
    """``48 s``, ``3 min 05 s``, ``2 h 07 min``; under ten seconds with a decimal."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count(value: float) -> str:
    """Digits in groups of three, set apart by a narrow space that does not break."""
    return f"{value:,.0f}".replace(",", "\u202f")


def cut(text: str, most: int) -> str:
    """The text's first ``most`` characters at a word's end where one is near, with an ellipsis if any are lost."""
    if len(text) <= most:
        return text
    head = text[:most]
    word_end = head.rfind(" ")
    return (head[:word_end] if word_end > most * 0.7 else head).rstrip() + " …"


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
