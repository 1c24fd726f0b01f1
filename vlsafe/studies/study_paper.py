"""The paper's cells beside ours, for the runs that say which of its rows they repeat (``evaluation.published``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlsafe.evaluation import markup
from vlsafe.evaluation.markup import safe
from vlsafe.evaluation.published import Cell, origin, published
from vlsafe.evaluation.report_text import number
from vlsafe.studies.runs import Run

KEY = "evaluation.published"
"""The config's key that names the row."""


def beside_paper(runs: Sequence[Run]) -> str:
    """A section with one row for each metric that both have; empty where no run names a row."""
    columns = ("Run", "Paper's row", "Metric", "Published, %", "Ours, %", "Intervals", "Remark")
    rows = [
        markup.row(
            columns, [safe(run.label), safe(row), safe(name), _told(cell), _mine(ours), _overlap(cell, ours), safe(why)]
        )
        for run in runs
        if (row := run.config.get(KEY))
        for name, cell in published(row, run.report["judge"]).items()
        if (ours := run.report["metrics"].get(name, {}).get("after"))
        for why in [": ".join(filter(None, [cell.table, cell.doubt]))]
    ]
    if not rows:
        return ""
    table = markup.table("The paper's cells beside ours", columns, [markup.body(rows)])
    told = f"{origin()}. It prints no intervals; those shown are Wilson's for the number of items of each set."
    return markup.section("Beside the paper", f'{markup.legend(safe(told))}<div class="wide">{table}</div>')


def _told(cell: Cell) -> str:
    if cell.low is None or cell.high is None:
        return number(cell.value)
    return f"{number(cell.value)} [{number(cell.low)}, {number(cell.high)}]"


def _mine(ours: Mapping[str, Any]) -> str:
    shown = number(ours["value"])
    return f"{shown} [{number(ours['low'])}, {number(ours['high'])}]" if "low" in ours else shown


def _overlap(cell: Cell, ours: Mapping[str, Any]) -> str:
    if cell.low is None or cell.high is None or "low" not in ours:
        return "—"
    return "overlap" if cell.low <= ours["high"] and ours["low"] <= cell.high else "apart"
