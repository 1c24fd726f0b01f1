"""Prints what was planned beside what was measured, where that was tested."""

from __future__ import annotations

from typing import Any

COLUMNS = ("model", "precision", "trains", "what", "planned", "measured", "ratio")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [report for key in ("passed", "failed") for report in terminalreporter.stats.get(key, [])]
    rows = [value for report in reports for key, value in report.user_properties if key == "planned against measured"]
    if rows:
        terminalreporter.section("planned against measured")
        for row in (COLUMNS, *rows):
            terminalreporter.write_line("".join(f"{cell:<14}" for cell in row).rstrip())
