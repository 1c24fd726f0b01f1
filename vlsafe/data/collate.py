"""Encoded samples -> one batch. Padding is masked by position, never by token id (pitfalls A4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vlsafe.data.encoding import IGNORE, Encoded


@dataclass
class Batch:
    """``inputs``: keyword arguments of the model's forward (input_ids and attention_mask [batch, length], picture
    tensors [pictures, ...]); ``labels``: [batch, length]; ``sources`` and ``ids``: one a row."""

    inputs: dict[str, Tensor]
    labels: Tensor
    sources: list[str]
    ids: list[str]

    def to(self, device: torch.device, non_blocking: bool = False) -> Batch:
        moved = {name: tensor.to(device, non_blocking=non_blocking) for name, tensor in self.inputs.items()}
        return Batch(moved, self.labels.to(device, non_blocking=non_blocking), self.sources, self.ids)

    def pin_memory(self) -> Batch:
        pinned = {name: tensor.pin_memory() for name, tensor in self.inputs.items()}
        return Batch(pinned, self.labels.pin_memory(), self.sources, self.ids)


class Collate:
    """Pads to the longest sample of the batch: on the right for training, on the left for generation."""

    def __init__(self, pad_id: int, side: Literal["left", "right"] = "right") -> None:
        self.pad_id = pad_id
        self.side = side

    def __call__(self, samples: Sequence[Encoded]) -> Batch:
        length = max(len(sample.input_ids) for sample in samples)
        inputs = {
            "input_ids": self._padded([s.input_ids for s in samples], length, self.pad_id),
            "attention_mask": self._padded([torch.ones_like(s.input_ids) for s in samples], length, 0),
        }
        for name in dict.fromkeys(name for sample in samples for name in sample.pixels):
            inputs[name] = torch.cat([sample.pixels[name] for sample in samples if name in sample.pixels])
        labels = self._padded([s.labels for s in samples], length, IGNORE)
        return Batch(inputs, labels, [s.source for s in samples], [s.id for s in samples])

    def _padded(self, rows: list[Tensor], length: int, value: int) -> Tensor:
        out = rows[0].new_full((len(rows), length), value)
        for index, row in enumerate(rows):
            place = slice(0, len(row)) if self.side == "right" else slice(length - len(row), length)
            out[index, place] = row
        return out
