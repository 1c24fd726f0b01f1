"""``vlsafe`` as a process of its own, told to stop as soon as something shows where it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L

ROOT = Path(__file__).parents[1]
PATIENCE = 300


class Told:
    """``vlsafe ARGV``, begun in ``folder``; both of its streams go to one file there."""

    def __init__(self, argv: list[str], folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log = folder / f"log-{time.monotonic_ns()}.txt"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "vlsafe", *argv],
                env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | dict(environment or {}),
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def once(self, shown: str | Callable[[Told], bool]) -> Told:
        """Waits until the process has said ``shown``, or until that is so."""
        end = time.monotonic() + PATIENCE
        while not (shown in self.said if isinstance(shown, str) else shown(self)):
            assert self.process.poll() is None and time.monotonic() < end, self.said[-5000:]
            time.sleep(0.005)
        return self

    def tell(self, number: int, group: bool = False) -> Told:
        os.killpg(self.process.pid, number) if group else os.kill(self.process.pid, number)
        return self

    def status(self) -> int:
        try:
            return self.process.wait(PATIENCE)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)


def imports(running: Told) -> bool:
    """It is reading torch's library, so the imports have begun and go on for seconds."""
    return "libtorch_cpu" in Path(f"/proc/{running.process.pid}/maps").read_text()


class Slow(L.Callback):
    """Steps that last long enough to be stopped in."""

    def on_train_batch_start(self, *_: Any) -> None:
        time.sleep(0.2)
