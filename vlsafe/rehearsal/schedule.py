"""Several rehearsals in processes forked from this one, each after the one whose model it starts from."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from vlsafe.rehearsal.asked import Asked
from vlsafe.rehearsal.phases import Rehearsal, Result
from vlsafe.rehearsal.reloader import Reloader


def rehearsed(runs: Sequence[Asked], folder: Path, reloader: Reloader, workers: int = 1) -> Iterator[Result]:
    """The results, as they come. Each run gets a folder of its own in ``folder``: ``00``, ``01``, ...

    A rehearsal is a process, so that nothing of one config is left for the next; what is imported is so once, here.
    """
    waiting = dict(enumerate(runs))
    running: dict[int, BaseProcess] = {}
    exported: dict[str, Path] = {}
    try:
        while waiting or running:
            for number, run in list(waiting.items()):
                if len(running) < workers and not _comes_later(number, run, runs, {*waiting, *running}):
                    del waiting[number]
                    running[number] = _started(run, folder / f"{number:02d}", dict(exported), reloader)
            for number, process in list(running.items()):
                if process.is_alive():
                    continue
                process.join()
                del running[number]
                _end(process)
                model = folder / f"{number:02d}" / "run" / "model"
                if runs[number].makes and model.is_dir():
                    exported[runs[number].makes] = model
                yield _result(runs[number], folder / f"{number:02d}")
            time.sleep(0.02)
    finally:
        for process in running.values():
            _end(process)


def _comes_later(number: int, run: Asked, runs: Sequence[Asked], open_ones: set[int]) -> bool:
    """Whether the model that the run starts from is still to be made by another."""
    return any(
        other != number and run.starts_from and runs[other].makes == run.starts_from != run.makes for other in open_ones
    )


def _started(run: Asked, folder: Path, exported: dict[str, Path], reloader: Reloader) -> BaseProcess:
    sys.stdout.flush()
    sys.stderr.flush()
    process = get_context("fork").Process(target=_one, args=(run, folder, exported, reloader))
    process.start()
    return process


def _one(run: Asked, folder: Path, exported: dict[str, Path], reloader: Reloader) -> None:
    os.setpgrp()  # so that all that it starts can be ended together
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # to ask for GPUs without starting CUDA, which no fork survives
    folder.mkdir(parents=True)
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    Rehearsal(run.name, list(run.argv), folder, exported, reloader).run().write(folder / "result.json")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _end(process: BaseProcess) -> None:
    """Whatever is left of a rehearsal: what was killed in it may have left workers."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()


def _result(run: Asked, folder: Path) -> Result:
    if (folder / "result.json").is_file():
        return Result.read(folder / "result.json")
    result = Result(run.name)
    words = (folder / "log").read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
    result.failed("parse", "the rehearsal's own process ended early:\n" + "\n".join(words), 1)
    return result
