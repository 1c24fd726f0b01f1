"""Throughput: how fast a run is, how much of it is padding, and how long it waits for data."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch
from torch import Tensor

from vlsafe.data.collate import Batch
from vlsafe.data.encoding import IGNORE
from vlsafe.errors import ConfigError
from vlsafe.models.module import SafetyFineTuning
from vlsafe.planning.flops import language_flops
from vlsafe.step_account import Mark, elapsed, mark


@dataclass
class _Window:
    """What happened since the last report. ``counts``: real and supervised tokens, on the device of the run until the
    window closes; ``copied``: when they are on the host."""

    step: int = 0
    samples: int = 0
    positions: int = 0
    counts: Tensor | None = None
    copied: Mark | None = None
    waits: list[tuple[Mark, Mark]] = field(default_factory=list)
    works: list[tuple[Mark, Mark]] = field(default_factory=list)


class Throughput(L.Callback):
    """Logs ``throughput/...`` every ``every_n_steps`` optimizer steps: samples, real, padded and supervised tokens a
    second over all ranks; the share of time that ranks waited for data, on average and at most; the most memory of a
    rank in GiB (GPU memory, or of the process on a CPU); and ``mfu`` where a peak is given.

    Nothing waits for the GPU: times are CUDA events and counts stay on the device; both are read one report later, when
    they are long there. Name it before other callbacks, whose time is then counted neither as work nor as waiting.

    Args:
        every_n_steps: optimizer steps between two reports.
        peak_tflops: of one device, dense, in the precision of the run (989 for bf16 on an H100). The share of it that
            is used counts the language model's matrix products only, so it is a lower bound.
    """

    def __init__(self, every_n_steps: int = 10, peak_tflops: float | None = None) -> None:
        if every_n_steps < 1:
            raise ConfigError(f"Throughput.every_n_steps is {every_n_steps}, must be at least 1")
        if peak_tflops is not None and peak_tflops <= 0:
            raise ConfigError(f"Throughput.peak_tflops is {peak_tflops}, must be above 0")
        self.every_n_steps = every_n_steps
        self.peak_tflops = peak_tflops
        self.fetching: Mark | None = None
        self._working: Mark | None = None
        self._window = _Window()
        self._closed: _Window | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            trainer.callbacks.append(_Last(self))

    # --- marks --------------------------------------------------------------------------------------------------------

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self._working = mark(pl_module.device)
        if self.fetching is not None:
            self._window.waits.append((self.fetching, self._working))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: SafetyFineTuning, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        window = self._window
        assert self._working is not None
        window.works.append((self._working, mark(pl_module.device)))
        window.samples += len(batch.ids)
        window.positions += batch.labels.numel()
        counts = _counts(batch)
        window.counts = counts if window.counts is None else window.counts + counts
        if trainer.global_step - window.step >= self.every_n_steps:
            self._report(trainer, pl_module)
            self._close(trainer, pl_module.device)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._window = _Window(step=trainer.global_step)

    def on_train_end(self, trainer: L.Trainer, pl_module: SafetyFineTuning) -> None:
        self._report(trainer, pl_module)
        if self._window.works:
            self._close(trainer, pl_module.device)
            self._report(trainer, pl_module)

    def _close(self, trainer: L.Trainer, device: torch.device) -> None:
        window = self._closed = self._window
        assert window.counts is not None
        window.counts = window.counts.to("cpu", non_blocking=True)
        window.copied = mark(device)
        window.step = trainer.global_step
        self._window = _Window(step=trainer.global_step)

    # --- reports ------------------------------------------------------------------------------------------------------

    def _report(self, trainer: L.Trainer, module: SafetyFineTuning) -> None:
        window, self._closed = self._closed, None
        if window is None or window.counts is None:
            return
        if isinstance(window.copied, torch.cuda.Event):
            window.copied.synchronize()
        waited, worked = elapsed(window.waits), elapsed(window.works)
        real, supervised = window.counts.tolist()
        mine = [waited, worked, window.samples, window.positions, real, supervised, peak_memory(module.device)]
        ranks = torch.tensor([mine], dtype=torch.float64)
        if trainer.world_size > 1:
            ranks = module.all_gather(ranks[0].float().to(module.device)).double().cpu()
        values = self._values(ranks, module)
        for logger in trainer.loggers:
            logger.log_metrics({f"throughput/{name}": value for name, value in values.items()}, step=window.step)

    def _values(self, ranks: Tensor, module: SafetyFineTuning) -> dict[str, float]:
        """``ranks`` [ranks, 7] as :meth:`_report` lays them out."""
        seconds = float((ranks[:, 0] + ranks[:, 1]).max())
        samples, positions, real, supervised = ranks[:, 2:6].sum(0).tolist()
        shares = ranks[:, 0] / (ranks[:, 0] + ranks[:, 1])
        values = {
            "samples_per_second": samples / seconds,
            "tokens_per_second": real / seconds,
            "padded_tokens_per_second": positions / seconds,
            "supervised_tokens_per_second": supervised / seconds,
            "data_wait_share": float(shares.mean()),
            "data_wait_share_max": float(shares.max()),
            "peak_memory_gib": float(ranks[:, 6].max()) / 2**30,
        }
        if self.peak_tflops is not None:
            assert module.model is not None and module.plan is not None
            flops = language_flops(module.model, module.plan, module.model.get_output_embeddings())
            done = real * flops.body + supervised * flops.head
            values["mfu"] = done / (seconds * len(ranks) * self.peak_tflops * 1e12)
        return values


class _Last(L.Callback):
    """Runs after all other callbacks: from here until the next batch begins, a run waits for data and nothing else."""

    def __init__(self, throughput: Throughput) -> None:
        self._throughput = throughput

    def _now(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self._throughput.fetching = mark(pl_module.device)

    on_train_epoch_start: Callable[..., None] = _now
    on_train_batch_end: Callable[..., None] = _now
    on_validation_end: Callable[..., None] = _now


def peak_memory(device: torch.device) -> int:
    """The most bytes so far: of the GPU's allocator, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _counts(batch: Batch) -> Tensor:
    """[real tokens, supervised tokens] on the batch's device."""
    mask = batch.inputs.get("attention_mask")
    real = batch.labels.new_tensor(batch.labels.numel()) if mask is None else mask.sum()
    return torch.stack([real, (batch.labels[:, 1:] != IGNORE).sum()])
