"""``vlsafe`` in processes that torchrun starts, one of which may be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]


def begun(world: int, argv: list[str], folder: Path) -> subprocess.Popen[str]:
    """``vlsafe ARGV`` in so many processes."""
    together = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)] if world > 1 else []
    return subprocess.Popen(
        [sys.executable, *together, "-m", "vlsafe", *argv],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def done(running: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit status, and the end of what it said."""
    said, _ = running.communicate(timeout=900)
    return running.returncode, said[-5000:]


def kill_one(running: subprocess.Popen[str], when: Callable[[], bool], by: int = signal.SIGKILL) -> None:
    """A signal to the last of the processes, as soon as ``when`` is so; torchrun ends the others after SIGKILL."""
    deadline = time.monotonic() + 600
    while not when():
        assert running.poll() is None and time.monotonic() < deadline, done(running)
        time.sleep(0.01)
    os.kill(psutil.Process(running.pid).children()[-1].pid, by)
