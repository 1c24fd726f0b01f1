"""How long vlsafe takes to begin: its help, a wrong config, and the first optimizer step of a tiny model.

    python tests/benchmarks/start.py [--repeats 5] [--out start.json]

Each is a process of its own; they take turns, and medians are told. Aims: ``--help`` in at most 0.2 of what importing
torch takes; a wrong YAML told within 1 s, and the first step done within 5 s, beyond the imports of the command line's
modules (Python's own start included in them). Exit status 1 when an aim is missed. The clock means something on an
idle machine only; processor time, which is told beside it, on a shared one too.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

from result import write  # noqa: E402

from tests.tiny_run import tiny_run  # noqa: E402

IMPORTS = "import vlsafe.cli, callbacks"


Times = tuple[float, float]
"""Seconds by the clock, and of processor time."""


def seconds(*arguments: str, expected: int = 0) -> Times:
    """Of ``python ARGUMENTS``. Raises SystemExit when it ends with another status."""
    before, used = time.time(), _processor_time()
    _finished(arguments, expected)
    return time.time() - before, _processor_time() - used


def _processor_time() -> float:
    """Of the processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def to_first_step(config: Path) -> Times:
    """From the launch of ``fit`` to the end of its first optimizer step."""
    mark = config.parent / "first_step"
    mark.unlink(missing_ok=True)
    before = time.time()
    run_dir = tempfile.mkdtemp(dir=config.parent)
    _finished(("-m", "vlsafe", "fit", "--config", str(config), f"--run_dir={run_dir}"), 0)
    ended, used = map(float, mark.read_text().split())
    return ended - before, used


def _finished(arguments: tuple[str, ...], expected: int) -> None:
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}
    )
    if done.returncode != expected:
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}, not {expected}:\n{done.stderr[-2000:]}")


def configs(folder: Path) -> tuple[Path, Path]:
    """A tiny run of one step without evaluation, and the same with a key that does not exist."""
    path = tiny_run(folder)
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    mark = {"class_path": "first_step.FirstStep", "init_args": {"path": str(folder / "first_step")}}
    content["trainer"] |= {"max_steps": 1, "limit_val_batches": 0, "callbacks": [mark]}
    del content["evaluation"]
    path.write_text(yaml.safe_dump(content))
    wrong = folder / "wrong.yaml"
    wrong.write_text(yaml.safe_dump(content | {"trainer": content["trainer"] | {"max_epoch": 1}}))
    return path, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON of every measurement")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config, wrong = configs(Path(folder))
        ways: dict[str, Callable[[], Times]] = {
            "import torch": lambda: seconds("-c", "import torch"),
            "imports": lambda: seconds("-c", IMPORTS),
            "--help": lambda: seconds("-m", "vlsafe", "--help"),
            "wrong YAML": lambda: seconds("-m", "vlsafe", "fit", "--config", str(wrong), expected=2),
            "first step": lambda: to_first_step(config),
        }
        times: dict[str, list[Times]] = {name: [] for name in ways}
        for _ in range(options.repeats):
            for name, way in ways.items():
                times[name].append(way())
    for name, values in times.items():
        clock = [value[0] for value in values]
        print(
            f"{name:14} {statistics.median(clock):7.2f} s   {min(clock):.2f} to {max(clock):.2f}"
            f"   processor {medians(times, 1)[name]:.2f} s"
        )
    if options.out:
        figures = {f"{name}, s of processor time": value for name, value in medians(times, 1).items()}
        figures |= {f"{name}, s": value for name, value in medians(times, 0).items()}
        write(options.out, "start", {"repeats": options.repeats}, figures, times=times)
    for name, figure, _ in aims(medians(times, 1)):
        print(f"{name:30} {figure:7.2f}   in processor time")
    return int(not all([told(*aim) for aim in aims(medians(times, 0))]))


def medians(times: dict[str, list[Times]], clock: int) -> dict[str, float]:
    """``clock``: 0 for the wall's, 1 for the processor's."""
    return {name: statistics.median(value[clock] for value in values) for name, values in times.items()}


def aims(middle: dict[str, float]) -> list[tuple[str, float, float]]:
    """What is held to an aim: name, figure, aim."""
    imports = middle["imports"]
    return [
        ("--help, of importing torch", middle["--help"] / middle["import torch"], 0.2),
        ("wrong YAML beyond imports, s", middle["wrong YAML"] - imports, 1.0),
        ("first step beyond imports, s", middle["first step"] - imports, 5.0),
    ]


def told(name: str, figure: float, aim: float) -> bool:
    print(f"{name:30} {figure:7.2f}   aim {aim:g}{'' if figure <= aim else '   MISSED'}")
    return figure <= aim


if __name__ == "__main__":
    sys.exit(main())
