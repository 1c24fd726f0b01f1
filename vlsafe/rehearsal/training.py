"""``fit`` in processes of its own, forked from one that has imported everything, as torchrun would start them."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from vlsafe.account import program_begins
from vlsafe.cli import built
from vlsafe.errors import VlsafeError
from vlsafe.rehearsal.journal import ToldAccount

LIMIT = 300.0
"""Seconds after which a training of two steps hangs."""
_GRACE = 10.0
"""Seconds in which the other processes may end by themselves once one has failed."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How processes have ended: killed as they were to be, or with an error in words and the exit status it stands for;
    ``error`` is empty where all went well."""

    killed: bool
    error: str = ""
    status: int = 0


def trained(argv: list[str], folder: Path, processes: int) -> Ended:
    """Runs ``fit`` with ``argv`` in so many processes. ``folder`` holds their logs (``log.0``, ...) and, in
    ``phases.jsonl``, when the first one began each phase."""
    folder.mkdir(parents=True)
    sys.stdout.flush()
    sys.stderr.flush()
    context, port = get_context("fork"), _free_port()
    started: list[BaseProcess] = []
    for rank in range(processes):
        started.append(context.Process(target=_one, args=(argv, folder, rank, processes, port)))
        started[-1].start()
    try:
        hung = not _ended(started)
    finally:
        for process in started:
            process.kill()
            process.join()
    errors = sorted(folder.glob("error.*"), key=lambda path: path.stat().st_mtime_ns)
    if errors:
        told = [json.loads(path.read_text(encoding="utf-8")) for path in errors]
        first = min(told, key=lambda each: not each["words"])  # what is told in words explains the others
        return Ended(False, first["error"], first["status"])
    if hung:
        return Ended(False, f"nothing more happened: stopped after {LIMIT:.0f} s", 1)
    codes = {process.exitcode for process in started}
    if codes == {-signal.SIGKILL}:
        return Ended(True)
    return Ended(False) if codes == {0} else Ended(False, f"the processes ended with {sorted(map(str, codes))}", 1)


def _ended(started: list[BaseProcess]) -> bool:
    """Wait until all have ended, or shortly after one has failed; whether they did so in time."""
    deadline = time.monotonic() + LIMIT
    while any(process.is_alive() for process in started):
        if any(process.exitcode for process in started):
            deadline = min(deadline, time.monotonic() + _GRACE)
        if time.monotonic() > deadline:
            return any(process.exitcode for process in started)
        time.sleep(0.02)
    return True


def _one(argv: list[str], folder: Path, rank: int, processes: int, port: int) -> None:
    log = os.open(folder / f"log.{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.set_num_threads(1)
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        del os.environ[name]  # whoever rehearses inside a job would else be taken for all of its tasks
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    if processes > 1:
        os.environ |= {
            "LOCAL_RANK": str(rank), "RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
    program_begins()
    try:
        built(["fit", *argv], run=True, account=ToldAccount("imports", folder / f"phases.{rank}"))
        code = 0
    except VlsafeError as error:
        code = _told(folder, rank, str(error), error.exit_status, words=True)
    except BaseException as error:
        traceback.print_exc()
        code = _told(folder, rank, last_words(error), 1, words=False)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _told(folder: Path, rank: int, error: str, status: int, words: bool) -> int:
    told = {"error": error, "status": status, "words": words}
    (folder / f"error.{rank}").write_text(json.dumps(told), encoding="utf-8")
    return status


def last_words(error: BaseException, lines: int = 12) -> str:
    """The end of a traceback."""
    return "\n".join("".join(traceback.format_exception(error)).rstrip().splitlines()[-lines:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
