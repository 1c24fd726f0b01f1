"""Results of the benchmarks over time: a row for each figure, a column for each file, and the last over the first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlsafe.errors import DataError


def over_time(paths: Sequence[Path]) -> str:
    """A Markdown table of the files that ``tests/benchmarks/*.py --out`` write, the oldest first.

    Raises DataError naming a file that is none, and files that measured different work.
    """
    read = [(path, _read(path)) for path in paths]
    path, first = read[0]
    other = [each for each, told in read if any(told[key] != first[key] for key in ("benchmark", "work"))]
    if other:
        raise DataError(
            [f"{each} measured other work than {path}: `benchmark` or `work` in it differ" for each in other]
        )
    read.sort(key=lambda pair: pair[1]["created"])
    columns = [told["figures"] for _, told in read]
    head = [f"{path.name}, {told['created'][:10]}, {_commit(told)}" for path, told in read]
    lines = [f"| {first['benchmark']} | {' | '.join(head)} | last / first |", "|---" * (len(read) + 2) + "|"]
    for name in dict.fromkeys(name for figures in columns for name in figures):
        values = [figures.get(name) for figures in columns]
        known = values[0] and values[-1] is not None and len(values) > 1
        cells = ["" if value is None else f"{value:.4g}" for value in values]
        lines.append(f"| {name} | {' | '.join(cells)} | {f'x{values[-1] / values[0]:.2f}' if known else ''} |")
    return "\n".join(lines) + "\n"


def _read(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        told = None
    if not isinstance(told, dict) or not {"benchmark", "work", "created", "figures"} <= told.keys():
        raise DataError(f"{path}: not the result of a benchmark, as `--out` of tests/benchmarks/*.py writes one")
    return told


def _commit(told: dict[str, Any]) -> str:
    git = told.get("git")
    return f"{git['commit'][:7]}{' with changes' if git['dirty'] else ''}" if git else "no commit"
