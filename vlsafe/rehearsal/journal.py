"""What a training process does, written down step by step, so that it is known after the process has been killed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.distributed.tensor import DTensor

from vlsafe.account import Account


class ToldAccount(Account):
    """An account that also writes down when each phase begins: one JSON object a line."""

    def __init__(self, first: str, path: Path) -> None:
        super().__init__(first)
        self._path = path
        _append(path, {"phase": first, "time": time.time()})

    def enter(self, phase: str) -> None:
        if phase != self._phase:
            _append(self._path, {"phase": phase, "time": time.time()})
        super().enter(phase)


class Journal(L.Callback):
    """Writes a line for each optimizer step of this process: its samples, its losses, a hash of what trains.

    Args:
        path: of the file; each process adds its rank.
        kill_at: after this step, and before its checkpoint, every process ends as a machine that fails: by SIGKILL.
    """

    def __init__(self, path: str, kill_at: int | None = None) -> None:
        self.path = path
        self.kill_at = kill_at
        self._step = 0
        self._ids: list[str] = []
        self._losses: list[float] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._ids += batch.ids
        self._losses.append(float(outputs["loss"]))
        if trainer.global_step == self._step:
            return  # a micro-batch that made no step
        self._step = trainer.global_step
        row = {"step": self._step, "ids": self._ids, "losses": self._losses, "weights": trained_hash(pl_module)}
        _append(Path(f"{self.path}.{trainer.global_rank}"), row)
        self._ids, self._losses = [], []
        if self._step == self.kill_at:
            trainer.strategy.barrier()
            os.kill(os.getpid(), signal.SIGKILL)


def trained_hash(module: L.LightningModule) -> str:
    """sha256 over the bytes of what trains, as far as this process holds it."""
    digest = hashlib.sha256()
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            tensor = parameter.detach()
            local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
            digest.update(name.encode() + local.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def _append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())
