"""Where a run's time goes, by the clock: every second since the program began belongs to one phase.

It imports nothing heavy, since the door starts it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

REST = "rest"
"""What no other phase explains."""

_began = time.perf_counter()


def program_begins() -> None:
    """From here on, time is part of the run that is asked for next."""
    global _began
    _began = time.perf_counter()


class Account:
    """Seconds by phase since the program began. Exactly one phase lasts at any time, until another is entered.

    Args:
        first: the phase from the program's beginning until now and further.
    """

    def __init__(self, first: str) -> None:
        self._seconds: dict[str, float] = {}
        self._phase = first
        self._since = _began

    def enter(self, phase: str) -> None:
        """From now on time belongs to ``phase``; one that comes again goes on."""
        now = time.perf_counter()
        self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = phase, now

    def seconds(self) -> dict[str, float]:
        """Phase -> seconds until now, in the order in which they were first entered."""
        self.enter(self._phase)
        return dict(self._seconds)


def divided(seconds: Mapping[str, float], phase: str, parts: Mapping[str, float]) -> dict[str, float]:
    """``seconds`` with ``phase`` replaced by its ``parts``, named ``phase: part``, and by the rest that they leave."""
    found: dict[str, float] = {}
    for name, whole in seconds.items():
        if name != phase or not parts:
            found[name] = whole
            continue
        found |= {f"{phase}: {part}": value for part, value in parts.items()}
        found[f"{phase}: {REST}"] = max(0.0, whole - sum(parts.values()))
    return found


def explained(seconds: Mapping[str, float]) -> float:
    """The share (0 to 1) of all time that is in a phase with a name of its own."""
    whole = sum(seconds.values())
    rest = sum(value for name, value in seconds.items() if name.endswith(f": {REST}"))
    return 1 - rest / whole if whole else 0.0
