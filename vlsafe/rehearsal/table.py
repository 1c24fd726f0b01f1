"""What a rehearsal showed, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vlsafe.rehearsal.phases import Result

_STYLE = {"passed": "green", "failed": "bold red"}


def print_result(result: Result, console: Console) -> None:
    """One run: each phase, what was replaced for it and why; then what cannot be shown here, and what went wrong."""
    table = Table(title=escape(result.name), title_justify="left", show_lines=False)
    for column in ("phase", "", "seconds", "replaced, by what, why"):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    for phase in result.phases:
        told = [f"{c.what} -> {c.by} ({c.why})" for c in result.changes if c.phase == phase.name]
        if phase.note and phase.state == "passed":
            told.append(f"shown: {phase.note}")
        style = _STYLE.get(phase.state, "dim")
        seconds = f"{phase.seconds:.1f}" if phase.seconds else ""
        cells = [phase.name, f"[{style}]{phase.state}[/]", seconds]
        for first, line in zip_longest(cells[:1], told or [""]):
            table.add_row(*(cells if first else ["", "", ""]), escape(line))
    console.print(table)
    if result.not_rehearsed:
        console.print(f"not rehearsed: {', '.join(result.not_rehearsed)}", markup=False, highlight=False)
    for phase in result.phases:
        if phase.state == "failed":
            console.print(f"{phase.name} failed: {phase.note}", markup=False, highlight=False)
    console.print()


def print_summary(results: Sequence[Result], console: Console) -> None:
    """Several runs, a line each."""
    table = Table(
        title=f"{sum(r.status == 0 for r in results)} of {len(results)} rehearsals passed", title_justify="left"
    )
    for column in ("run", "", "seconds"):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    for result in results:
        failed = [phase.name for phase in result.phases if phase.state == "failed"]
        told = f"[bold red]{failed[0]} failed[/]" if failed else "[green]passed[/]"
        table.add_row(escape(result.name), told, f"{sum(phase.seconds for phase in result.phases):.1f}")
    console.print(table)
