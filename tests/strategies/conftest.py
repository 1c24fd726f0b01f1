"""The tests of the models bring a tiny model, data that fits it and tiny checkpoints of every family."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

MODELS = Path(__file__).parents[1] / "models"
sys.path += [str(MODELS), str(MODELS / "families")]

COLUMNS = ("family", "trains", "two processes", "loss", "norm", "weights", "at worst", "resumed")
"""Relative differences of losses and of gradient norms before clipping, the largest of five steps; of the weights after
them in steps of Adam, root mean square and largest; weights of the run that went on from the third step."""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How far training on two processes is from training on one."""
    reports = [report for key in ("passed", "failed") for report in terminalreporter.stats.get(key, [])]
    rows = [value for report in reports for key, value in report.user_properties if key == "row"]
    if rows:
        terminalreporter.section("two processes against one")
        for row in (COLUMNS, *rows):
            terminalreporter.write_line("".join(f"{cell:<16}" for cell in row).rstrip())
