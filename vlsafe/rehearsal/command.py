"""The command ``rehearse``."""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from rich.console import Console

from vlsafe.errors import ConfigError
from vlsafe.rehearsal.asked import asked
from vlsafe.rehearsal.reloader import Reloader
from vlsafe.rehearsal.schedule import rehearsed
from vlsafe.rehearsal.table import print_result, print_summary


def main(argv: list[str]) -> int:
    """``rehearse --config C [--config OVERLAY]``. Raises VlsafeError; returns the exit status."""
    options, flags = _parser().parse_known_args(argv)
    unknown = [flag for flag in flags if not (flag.startswith("--") and "=" in flag)]
    if unknown:
        raise ConfigError(f"rehearse does not know {unknown[0]!r}; flags of a config are written --key=value")
    if options.workers < 1:
        raise ConfigError(f"--workers is {options.workers}, must be at least 1")
    console = Console(width=None if sys.stdout.isatty() else 160)
    with ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _leave))
        folder = _folder(options.keep, stack)
        runs = asked(options.runs, options.config, flags, folder / "stages")
        reloader = stack.enter_context(Reloader(folder))
        results = []
        for result in rehearsed(runs, folder, reloader, options.workers):
            print_result(result, console)
            results.append(result)
    if len(results) > 1:
        print_summary(results, console)
    if options.keep is not None:
        print(f"kept: {options.keep}")
    status = {result.status for result in results} - {0}
    return 0 if not status else status.pop() if len(status) == 1 else 1


def _leave(number: int, frame: FrameType | None) -> None:
    """As Ctrl-C: whatever was started ends too."""
    sys.exit(128 + number)


def _folder(keep: Path | None, stack: ExitStack) -> Path:
    if keep is None:
        return Path(stack.enter_context(TemporaryDirectory(prefix="vlsafe-rehearsal-", ignore_cleanup_errors=True)))
    if keep.exists():
        raise ConfigError(f"--keep {keep} is there already; name a new folder")
    keep.mkdir(parents=True)
    return keep.absolute()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vlsafe rehearse",
        usage="vlsafe rehearse [RUN ...] [--config C ...] [--a.b=c ...] [--workers N] [--keep DIR]",
        description="Run a config from end to end at toy size: its own precision, strategy, callbacks and evaluation, "
        "on small random checkpoints of its own architectures. Reads a config, and the small files and first records "
        "that it names, where they are there. Writes one table a run to standard output, and nothing into the config's "
        "run directory. Exit status 0 only where every phase passed.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="several runs in one process: a config, configs laid over each other (joined by commas), a sweep file "
        "(its first trial), the stage files of a pipeline. A run that starts from another's model gets the one that "
        "was just rehearsed",
    )
    parser.add_argument(
        "--config", action="append", default=[], metavar="C", help="the run; beside RUN, an overlay on each of them"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="runs at a time (default: 1)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep configs, logs, models and reports in DIR")
    return parser
