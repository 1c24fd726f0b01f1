"""Stopping when asked: Ctrl-C, or the signal of a cluster that wants its machines back.

It imports nothing heavy, since the door starts it, before anything else.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

from vlsafe.errors import ConfigError

if TYPE_CHECKING:
    import lightning as L

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_WORKER_GOES_ON = 120
"""Seconds that a data worker lives after SIGTERM, while its parent ends the step and saves."""
_ONE_REQUEST = 1.0
"""Seconds within which further signals are the same request: a terminal tells the whole group, and torchrun, srun and
Lightning's launcher pass on to their processes what these have heard already."""


class Interrupted(ConfigError):
    """The user stopped the run; the message says how to go on."""

    exit_status = 130


class Preempted(Interrupted):
    """A cluster stopped the run, as SIGTERM or SIGUSR1 told. A job script may put the job back into the queue."""

    exit_status = 143


class Stopped(SystemExit):
    """Raised wherever the program is when it is told to stop. No error, so nothing that handles errors goes on after
    it; what is begun is put right by ``finally``."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class StopSignals:
    """What a signal does, by what the program is at.

    ``exit``: ends the process on the spot; while it starts there is nothing to save, and a module that is imported may
    swallow any exception. ``raise``: raises :class:`Stopped`. ``defer``: is remembered until someone asks, for training
    ends between two steps. One more signal goes one further: from ``defer`` to ``raise``, from there to ``exit``.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._does: Literal["exit", "raise", "defer"] = "exit"
        self._at = 0.0
        self._process = 0
        self._previous: dict[int, Any] = {}

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Signals are handled here until the end, then as before. Only the main thread can, and one is enough."""
        if self._previous or threading.current_thread() is not threading.main_thread():
            yield
            return
        self.received, self._does, self._process = None, "exit", os.getpid()
        self._previous = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in self._previous.items():
                signal.signal(number, handler)
            self._previous, self.received = {}, None

    def defer(self) -> None:
        """From now on the first signal is remembered."""
        self._does = "defer"

    def deliver(self) -> None:
        """From now on a signal raises Stopped; so does this, where one was remembered."""
        self._does = "raise"
        if self.received is not None:
            raise Stopped(self.status)

    def agreed(self, trainer: L.Trainer) -> bool:
        """Whether any process was asked to stop. Every process calls this at every step, and all get one answer, since
        all must save together."""
        if trainer.world_size > 1 and trainer.strategy.reduce_boolean_decision(self.received is not None, all=False):
            self.received = self.received or signal.SIGTERM
        return self.received is not None

    @property
    def status(self) -> int:
        """The exit status that says what stopped the program."""
        return Interrupted.exit_status if self.received == signal.SIGINT else Preempted.exit_status

    def error(self, message: str) -> Interrupted:
        return Interrupted(message) if self.received == signal.SIGINT else Preempted(message)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # forked, to be ended by its parent; but a cluster tells every process
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        if self.received is None:
            self.received, self._at = number, time.monotonic()
            if self._does == "defer":
                _say(f"{_name(number)}: stopping after this step; once more stops at once")
                return
        elif time.monotonic() - self._at < _ONE_REQUEST:
            return
        if self._does == "exit":
            _say(f"{_name(number)}: stopped")
            os._exit(self.status)
        self._does = "exit"
        _say(f"{_name(number)}: stopping; once more stops at once")
        raise Stopped(self.status)


STOP = StopSignals()
"""Of this process."""


def outlive_signals() -> None:
    """In a data worker: a cluster's signal reaches every process of a job, and a step whose worker has died fails
    before it is saved. The parent ends its workers; where it is gone, they end by themselves."""
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_WORKER_GOES_ON))


def signals_stay_ours(trainer: L.Trainer) -> None:
    """Lightning puts handlers of its own before ours when training begins. Under SLURM they save a checkpoint of
    another form and put the job back into the queue, which the job's script does here; on several processes they
    broadcast from inside the handler, in the middle of whatever the processes are exchanging."""
    trainer._signal_connector.register_signal_handlers = lambda: None


def _name(number: int) -> str:
    return signal.Signals(number).name


def _say(words: str) -> None:
    os.write(2, f"\n{words}\n".encode())  # a signal may come in the middle of a print, which is not re-entrant
