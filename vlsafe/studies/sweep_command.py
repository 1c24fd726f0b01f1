"""The verb ``sweep``: a W&B sweep file, run here."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from pathlib import Path

from rich.console import Console

from vlsafe.errors import ConfigError
from vlsafe.evaluation.records import write_text
from vlsafe.studies.search import open_search
from vlsafe.studies.sweep import Sweep
from vlsafe.studies.sweep_file import SweepFile, read_sweep


def main(argv: list[str]) -> int:
    """``sweep SWEEP.yaml [--count N] [--workers K] [--resume] [--slurm]``. Raises VlsafeError."""
    parser = argparse.ArgumentParser(
        prog="vlsafe sweep",
        description="Run the trials of a W&B sweep file as processes on this machine, without a server.",
        epilog="Reads SWEEP.yaml. Writes the study directory: sweep.yaml, journal.log, trials.json, and for each trial "
        "trials/NNNN with command.json, output.log and run/, its run directory. Exit status 1 when a trial failed.",
        allow_abbrev=False,
    )
    parser.add_argument("sweep", type=Path, metavar="SWEEP.yaml")
    parser.add_argument("--count", type=int, help="trials of the study in all (default: the whole grid, or run_cap)")
    parser.add_argument("--workers", type=int, default=1, help="trials at a time (default: 1)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="study directory (default: runs/sweeps/<file's name>)")
    parser.add_argument("--resume", action="store_true", help="go on with a study, or join one from another machine")
    parser.add_argument("--slurm", action="store_true", help="write DIR/sweep.slurm, an array of workers, and stop")
    options = parser.parse_args(argv)
    if options.workers < 1:
        raise ConfigError(f"--workers is {options.workers}, must be at least 1")
    sweep = read_sweep(options.sweep)
    directory: Path = options.out or Path("runs/sweeps") / options.sweep.stem
    _prepare(sweep, directory, options.resume)
    count = _count(sweep, options.count)
    if options.slurm:
        open_search(sweep, directory)  # made once, before the workers race for it
        print(_slurm(options.sweep, directory, count, options.workers))
        return 0
    runner = Sweep(sweep, directory, count, options.workers)
    try:
        runner.run()
    finally:
        Console().print(runner.table())
    print(f"study: {directory}")
    return 0


def _prepare(sweep: SweepFile, directory: Path, resume: bool) -> None:
    """A study belongs to one sweep file: another one under the same folder would mix what cannot be compared."""
    kept, text = directory / "sweep.yaml", sweep.path.read_text(encoding="utf-8")
    if kept.exists() and not resume:
        raise ConfigError(f"{directory} holds a study; add --resume to go on with it, or choose another --out")
    if kept.exists() and kept.read_text(encoding="utf-8") != text:
        raise ConfigError(f"{sweep.path} is no longer the file that {directory} was begun with; choose another --out")
    write_text(kept, text)


def _count(sweep: SweepFile, asked: int | None) -> int:
    whole = math.prod(len(p.values) for p in sweep.parameters.values()) if sweep.method == "grid" else None
    limits = [limit for limit in (whole, asked, sweep.run_cap) if limit is not None]
    if not limits:
        raise ConfigError(f"a {sweep.method} search has no end: give --count, or run_cap in {sweep.path}")
    if min(limits) < 1:
        raise ConfigError(f"--count is {min(limits)}, must be at least 1")
    return min(limits)


def _slurm(sweep: Path, directory: Path, count: int, workers: int) -> str:
    """Each task of the array is a worker on the same journal, which takes trials until ``count`` have begun."""
    command = [
        sys.executable,
        "-m",
        "vlsafe",
        "sweep",
        str(sweep),
        f"--count={count}",
        f"--out={directory}",
        "--resume",
    ]
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={sweep.stem}",
        f"#SBATCH --array=1-{workers}",
        f"#SBATCH --output={directory}/slurm-%A-%a.log",
        "#SBATCH --requeue",
        "# Add what your cluster asks for: --partition, --gres=gpu:1, --time. A task that runs out of time may be",
        "# submitted again: its unfinished trial is taken up by whichever worker comes next.",
        shlex.join(command),
    ]
    path = directory / "sweep.slurm"
    write_text(path, "\n".join(lines) + "\n")
    return f"sbatch {path}"
