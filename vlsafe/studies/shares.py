"""Which runs of a study form one curve over the share of a part of the data: all else has to be equal."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from vlsafe.studies.runs import Run, settings

_SHARE = re.compile(r"data\.init_args\.parts\.[^.]+\.share")


def over_share(runs: Sequence[Run], key: str) -> dict[float, list[Run]]:
    """Value of ``key`` -> the runs that have it, for the largest set of runs that differ in nothing else but seeds.

    Where ``key`` is the share of one part of the data, the shares of the others go with it when they keep their
    proportions; a share of 1 leaves nothing to them, so it belongs to every set. Empty where no two values are left.
    """
    given = [run for run in runs if isinstance(run.config.get(key), int | float)]
    others = [other for other in settings(given) if other != key]
    fixed = [other for other in others if not (_SHARE.fullmatch(key) and _SHARE.fullmatch(other))]
    moved = [other for other in others if other not in fixed]
    sets: dict[str, list[Run]] = {}
    whole: list[tuple[str, Run]] = []
    for run in given:
        same = json.dumps([run.config.get(other) for other in fixed], default=str)
        rest = 1 - float(run.config[key])
        if moved and rest == 0:
            whole.append((same, run))
        else:
            proportions = [round(float(run.config.get(other) or 0) / rest, 6) for other in moved]
            sets.setdefault(same + json.dumps(proportions), []).append(run)
    for same, run in whole:
        for name in [name for name in sets if name.startswith(same)]:
            sets[name].append(run)
    curves = [_by_value(each, key) for each in sets.values()]
    best = max(curves, key=len, default={})
    return best if len(best) > 1 else {}


def _by_value(runs: Sequence[Run], key: str) -> dict[float, list[Run]]:
    """A run that repeats another's value and seed counts once: a second look at one sample of chance would make the
    intervals too narrow."""
    found: dict[float, dict[str, Run]] = {}
    for run in runs:
        found.setdefault(float(run.config[key]), {}).setdefault(str(run.seed), run)
    return {value: list(each.values()) for value, each in found.items()}
