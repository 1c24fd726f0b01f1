"""The evaluations to compare: each scored from its records, and named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlsafe.errors import ConfigError, DataError
from vlsafe.evaluation.compare import facts
from vlsafe.evaluation.folder import Folder, metric_row, read_folder
from vlsafe.evaluation.scoring import directions

_STAGES = {"before", "after", "test"}


@dataclass(frozen=True, slots=True)
class Evaluated:
    """``metrics``: name -> ``{value, low, high, n, n_error}`` in percent; ``directions`` as in ``metrics.json``."""

    name: str
    folder: Folder
    metrics: dict[str, dict[str, Any]]
    directions: dict[str, dict[str, str]]


def read_evaluated(paths: Sequence[Path], judge: str | None = None) -> list[Evaluated]:
    """Each path is an evaluation folder, or the directory of a run, whose last evaluation is read.

    Raises ConfigError for a path given twice, DataError naming what cannot be read, a run with a harm side and no
    benign one (or the reverse), and evaluations by different judges.
    """
    places = [path / "evaluation" / "after" if (path / "evaluation" / "after").is_dir() else path for path in paths]
    repeated = [str(place) for place, count in Counter(each.resolve() for each in places).items() if count > 1]
    if repeated:
        raise ConfigError(f"{', '.join(repeated)}: given twice; a run cannot be compared with itself")
    runs = [_evaluated(name, place, judge) for name, place in zip(names(places), places, strict=True)]
    others = [run for run in runs if run.folder.judge != runs[0].folder.judge]
    if others:
        raise DataError(
            [
                f"{run.folder.path} was judged by {run.folder.judge}, {runs[0].folder.path} by {runs[0].folder.judge}; "
                "judge all by the same, or name one with --judge"
                for run in others
            ]
        )
    return runs


def _evaluated(name: str, place: Path, judge: str | None) -> Evaluated:
    folder = read_folder(place, judge)
    try:
        metrics = folder.metrics()
    except DataError as error:
        raise DataError([f"{place}: {problem}" for problem in error.problems]) from error
    return Evaluated(
        name,
        folder,
        {metric: metric_row(value) for metric, value in metrics.items()},
        directions(folder.items, list(metrics), folder.benchmarks, folder.judge),
    )


def names(places: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart; a stage of a run is named only beside another of it."""
    parts = [[part for part in place.resolve().parts if part != "evaluation"] for place in places]
    runs = [each[:-1] if each[-1] in _STAGES else each for each in parts]
    stages = [f"/{each[-1]}" if runs.count(run) > 1 else "" for each, run in zip(parts, runs, strict=True)]
    for length in range(1, max(map(len, runs)) + 1):
        found = ["/".join(run[-length:]) + stage for run, stage in zip(runs, stages, strict=True)]
        if len(set(found)) == len(found):
            return found
    return [str(place) for place in places]


def shared(first: Evaluated, second: Evaluated) -> tuple[Folder, Folder] | None:
    """Both evaluations without the benchmarks that they do not have item by item alike; None where none is left, or
    only one side of safety."""
    old, new = facts(first.folder), facts(second.folder)
    unlike = {
        item.benchmark for each in (first, second) for item in each.folder.items if old.get(item.id) != new.get(item.id)
    }
    cut = _without(first.folder, unlike), _without(second.folder, unlike)
    sides = {item.side for item in cut[0].items}
    one_sided = ("harm" in sides) != ("benign" in sides)
    return None if one_sided or not sides else cut


def _without(folder: Folder, benchmarks: set[str]) -> Folder:
    items = [item for item in folder.items if item.benchmark not in benchmarks]
    ids = {item.id for item in items}
    return replace(
        folder,
        items=items,
        responses=[each for each in folder.responses if each.id in ids],
        verdicts=[each for each in folder.verdicts if each.id in ids],
        preferences=[each for each in folder.preferences if each.item_id in ids],
        grades={item_id: runs for item_id, runs in folder.grades.items() if item_id in ids},
    )
