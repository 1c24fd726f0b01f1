"""The loss of every source of a mixture: sums over tokens, added up over batches and processes."""

from __future__ import annotations

from collections.abc import Iterator

import lightning as L
import torch
from torch import Tensor

from vlsafe.data.collate import Batch
from vlsafe.objectives.base import LossSums


class SourceLosses:
    """Sums of batches, kept until they are reduced: means of means would weight sources by their answers' length."""

    def __init__(self) -> None:
        self._batches: list[tuple[Tensor, Tensor, list[str]]] = []

    def add(self, sums: LossSums, batch: Batch) -> None:
        self._batches.append((sums.sample_loss, sums.sample_tokens, batch.sources))

    def reduced(self, trainer: L.Trainer, names: list[str], device: torch.device) -> Tensor:
        """[sources, (loss sum, tokens, samples)] in float64 on the CPU, in the order of ``names``, over all processes.
        Empties what was added. Every process must call it."""
        table = torch.zeros(len(names), 3, dtype=torch.float64, device="cpu")
        for sample_loss, sample_tokens, sources in self._batches:
            for source, loss, tokens in zip(sources, sample_loss.tolist(), sample_tokens.tolist(), strict=True):
                table[names.index(source)] += torch.tensor([loss, tokens, 1.0], dtype=torch.float64)
        self._batches.clear()
        if trainer.world_size > 1:
            table = trainer.strategy.reduce(table.float().to(device), reduce_op="sum").double().cpu()
        return table


def means(stage: str, names: list[str], per_source: Tensor) -> Iterator[tuple[str, Tensor | float]]:
    """Name of a metric and mean over tokens: of all sources together first, then of each that had any."""
    loss, tokens, _ = per_source.sum(0)
    yield f"{stage}/loss", loss / tokens
    for name, (part_loss, part_tokens, _) in zip(names, per_source.tolist(), strict=True):
        if part_tokens:
            yield f"{stage}/loss/{name}", part_loss / part_tokens


def count(seen: dict[str, dict[str, int]], names: list[str], per_source: Tensor) -> None:
    """Adds the samples and supervised tokens of ``per_source`` to those that a run has ``seen``."""
    for name, (_, tokens, samples) in zip(names, per_source.tolist(), strict=True):
        so_far = seen.setdefault(name, {"samples": 0, "supervised_tokens": 0})
        so_far["samples"] += round(samples)
        so_far["supervised_tokens"] += round(tokens)
