"""Several processes on this machine that train together over gloo, forked from the test so that nothing is imported
again."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch


def together(world: int, work: Callable[..., Any], *args: Any, limit: float = 240) -> list[int | None]:
    """Runs ``work(*args)`` in ``world`` processes as a cluster environment of Lightning's own would start them.

    Returns their exit codes; raises AssertionError with the first traceback where one failed, or which still ran
    after ``limit`` seconds. All of them are gone afterwards.
    """
    context = get_context("fork")
    failures = context.SimpleQueue()
    port = free_port()
    started: list[BaseProcess] = []
    for rank in range(world):
        process = context.Process(target=_one, args=(rank, world, port, failures, work, args))
        process.start()
        started.append(process)
    try:
        for process in started:
            process.join(limit)
        if not failures.empty():
            raise AssertionError(failures.get())
        hung = [rank for rank, process in enumerate(started) if process.is_alive()]
        assert not hung, f"processes {hung} still ran after {limit} s"
    finally:
        for process in started:
            process.kill()
            process.join()
    return [process.exitcode for process in started]


def _one(rank: int, world: int, port: int, failures: Any, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    log = os.open(os.devnull, os.O_WRONLY)
    os.dup2(log, 1)
    try:
        work(*args)
    except BaseException:
        failures.put(f"rank {rank}:\n{traceback.format_exc()}")
        os._exit(1)
    os._exit(0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def saved(path: Path) -> Any:
    return torch.load(path, weights_only=True)
