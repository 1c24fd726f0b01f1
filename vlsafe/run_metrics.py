"""metrics.csv over interruptions: Lightning's CSVLogger starts an empty file whenever a run is resumed."""

from __future__ import annotations

import csv
from pathlib import Path

_EARLIER = "metrics.earlier.csv"


def set_metrics_aside(run_dir: Path) -> None:
    """Before a resumed run: what metrics.csv holds so far is kept beside it."""
    current = run_dir / "metrics.csv"
    if current.is_file():
        _write_union(run_dir)
        current.unlink()


def put_metrics_back(run_dir: Path) -> None:
    """After a resumed run: metrics.csv holds every step again, the later value where a step was logged twice."""
    if (run_dir / _EARLIER).is_file():
        _write_union(run_dir)
        (run_dir / _EARLIER).replace(run_dir / "metrics.csv")


def _write_union(run_dir: Path) -> None:
    rows, columns = [], dict[str, None]()
    for name in (_EARLIER, "metrics.csv"):
        if (run_dir / name).is_file():
            with (run_dir / name).open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                rows += list(reader)
                columns |= dict.fromkeys(reader.fieldnames or ())
    with (run_dir / _EARLIER).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(rows)
