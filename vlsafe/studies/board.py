"""What a study tells while it runs: a table that lives on a terminal, a line for each change in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

WAITS = "waits"
"""The state that is no news."""
_AROUND = 7
"""Lines of a terminal that are not rows: the table's head, its caption, the prompt."""


class Board:
    """Tells how a study goes on, on standard error. The table goes when the board is left: who shows it at the end,
    says it on standard output.

    Args:
        table: what a terminal shows, of at most so many rows.
        states: name -> state; where standard error is no terminal, each change is a line.
    """

    def __init__(self, table: Callable[[int], Table], states: Callable[[], Mapping[str, str]]) -> None:
        self._table = table
        self._states = states
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._told: dict[str, str] = {}

    def __enter__(self) -> Board:
        self._told = dict(self._states())
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self) -> None:
        if self._console.is_terminal:
            self._live.update(self._table(max(1, self._console.height - _AROUND)), refresh=True)
            return
        for name, state in self._states().items():
            if self._told.get(name) != state:
                self._told[name] = state
                if state != WAITS:
                    self._console.print(f"{time.strftime('%H:%M:%S')} {name}: {state}", markup=False, soft_wrap=True)
