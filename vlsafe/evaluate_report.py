"""The report of one evaluation, alone or beside an earlier one of the same items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from vlsafe.evaluation.agreement import folder_agreements
from vlsafe.evaluation.batching import read_batching
from vlsafe.evaluation.compare import compare_folders
from vlsafe.evaluation.conditions import unlike_conditions
from vlsafe.evaluation.folder import metric_row, read_folder
from vlsafe.evaluation.probe_effects import probe_effects
from vlsafe.evaluation.report import terminal_table, write_report
from vlsafe.evaluation.report_examples import folder_examples
from vlsafe.evaluation.scoring import directions
from vlsafe.run_report import versions


def report(
    folder: Path,
    title: str,
    baseline: Path | None = None,
    skipped: Sequence[str] = (),
    notes: Sequence[str] = (),
    made_with: Mapping[str, str] | None = None,
) -> None:
    """``report.json`` and ``report.html`` in ``folder``, and the table on standard output.

    ``skipped``: benchmarks that were left out, with why; they and ``notes`` are notes of the report. ``made_with``:
    what is told beside the versions, such as the precision. Raises DataError when ``baseline`` is not of the same items
    or judge.
    """
    kept = read_folder(folder)
    first = read_folder(baseline, kept.judge) if baseline else None
    metrics: dict[str, dict[str, Any]] = {name: {"after": metric_row(each)} for name, each in kept.metrics().items()}
    if first:
        metrics |= compare_folders(first, kept)
    content = {
        "title": f"{title} beside {baseline}" if baseline else title,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "judge": kept.judge,
        "metrics": metrics,
        "directions": directions(kept.items, list(metrics), kept.benchmarks, kept.judge),
        "agreement": folder_agreements(folder),
        "probes": probe_effects(kept),
        "batching": read_batching(folder),
        "examples": folder_examples(first, kept),
        "environment": versions() | dict(made_with or {}),
        "unlike": unlike_conditions(first.responses, kept.responses) if first else {},
        "notes": [*notes, *(f"Left out: {line}" for line in skipped)],
    }
    page = write_report(content, folder)
    Console().print(terminal_table(content))
    for line in notes:
        print(line)
    for line in skipped:
        print(f"left out: {line}")
    print(f"report: {page}")
