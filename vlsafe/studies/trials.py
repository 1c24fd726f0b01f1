"""One trial of a sweep or stage of a pipeline: a process with a folder, a lock that lives as long, what it measured."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from vlsafe.studies.objective import NAME
from vlsafe.studies.sweep_file import SweepFile, Values


def folder_of(directory: Path, number: int) -> Path:
    return directory / "trials" / f"{number:04d}"


def locked(folder: Path) -> IO[str] | None:
    """The trial's lock, or None while another process has it.

    The trial's own process inherits it. So when whoever started it is killed, the lock tells whether the trial still
    runs, on any machine that shares the file system.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / "lock").open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


@dataclass
class Running:
    """A process that this one has started, in its own folder, with the lock that it holds."""

    number: int
    folder: Path
    process: subprocess.Popen[bytes]
    lock: IO[str]

    def tell(self, number: int) -> None:
        """Send a signal to the process and all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def stop(running: Sequence[Running], patience: float = 100.0) -> None:
    """End the processes: all are asked first, so that each saves its step, and after ``patience`` seconds made to.
    Clusters leave two minutes between their signal and the end."""
    for each in running:
        each.tell(signal.SIGTERM)
    end = time.monotonic() + patience
    for each in running:
        try:
            each.process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            each.tell(signal.SIGKILL)
            each.process.wait()


def start(sweep: SweepFile, number: int, values: Values, folder: Path, lock: IO[str], workers: int) -> Running:
    """Run the trial's command with ``--run_dir`` at its end."""
    return launch(sweep.rendered(values, f"--run_dir={folder / 'run'}"), number, folder, lock, workers)


def launch(command: list[str], number: int, folder: Path, lock: IO[str], workers: int) -> Running:
    """Start ``command``, which inherits the lock; it is kept in ``command.json``, its output goes to ``output.log``.

    Of several ``workers`` each gets its share of the cores: processes with a thread for every core would wait for each
    other's.
    """
    (folder / "command.json").write_text(json.dumps(command, indent=1) + "\n", encoding="utf-8")
    # Without a server: what a W&B logger in the config writes stays here, and `wandb sync` may send it later.
    environment = {"WANDB_MODE": "offline"} | os.environ
    if workers > 1:
        environment = {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // workers))} | environment
    with (folder / "output.log").open("ab") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
            pass_fds=[lock.fileno()],
        )
    return Running(number, folder, process, lock)


def measured(folder: Path, metric: str) -> float | None:
    """The metric of a trial that has come to its end, from its report; None before that, or without the metric."""
    path = folder / "run" / "report.json"
    if not path.is_file():
        return None
    report = json.loads(path.read_text(encoding="utf-8"))
    if metric == NAME or metric.startswith(f"{NAME}/"):
        value = report["objective"].get(metric.removeprefix(NAME).lstrip("/") or "value")
    else:
        value = report["metrics"].get(metric.removeprefix("final/"), {}).get("after", {}).get("value")
    return None if value is None else float(value)


def on_the_way(folder: Path, metric: str) -> list[float]:
    """What the trial has logged of the metric so far, by step: what its probes found."""
    path = folder / "run" / "metrics.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [float(row[metric]) for row in csv.DictReader(file) if row.get(metric) and row.get("step")]


def last_words(folder: Path, lines: int = 3) -> str:
    """The end of a trial's output, for whoever asks why it failed."""
    path = folder / "output.log"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return " | ".join(line.strip() for line in text.splitlines()[-lines:] if line.strip())
