"""Stopping at a step boundary when asked: Ctrl-C, or the signal of a cluster that wants its machines back."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

import lightning as L

from vlsafe.errors import ConfigError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Interrupted(ConfigError):
    """The user stopped the run; the message says how to go on."""

    exit_status = 130


class Preempted(Interrupted):
    """A cluster stopped the run, as SIGTERM or SIGUSR1 told. A job script may put the job back into the queue."""

    exit_status = 143


class StopSignals:
    """Between :meth:`begin` and :meth:`end`, remembers the first signal instead of dying of it. A second Ctrl-C
    stops at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def begin(self) -> None:
        self._previous = {number: signal.signal(number, self._on_signal) for number in SIGNALS}

    def end(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.received == number == signal.SIGINT:
            self.end()
            raise KeyboardInterrupt
        if self.received is None:
            self.received = number
            again = "; press Ctrl-C again to stop at once" if number == signal.SIGINT else ""
            print(f"\n{signal.Signals(number).name}: stopping after this step{again}", flush=True)

    def agreed(self, trainer: L.Trainer) -> bool:
        """Whether any process was asked to stop. Every process calls this at every step, and all get one answer, since
        all must save together."""
        if trainer.world_size > 1 and trainer.strategy.reduce_boolean_decision(self.received is not None, all=False):
            self.received = self.received or signal.SIGTERM
        return self.received is not None

    def error(self, message: str) -> Interrupted:
        return Interrupted(message) if self.received == signal.SIGINT else Preempted(message)
