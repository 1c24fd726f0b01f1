"""Encoded samples -> one batch. Padding is masked by position, never by token id (pitfalls A4).

Two layouts. *Padded*: one row a sample. *Padding-free*: all samples one after the other in a single row, whose
``position_ids`` start again at each sample and which has no attention mask; transformers reads that as a
block-diagonal mask, so samples do not see each other (pitfalls F1). Steps and samples per step stay the same::

    samples  a b c | d e        padded         a b c      padding-free   a b c d e
                                               d e .      position_ids   0 1 2 0 1
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vlsafe.data.encoding import IGNORE, Encoded


@dataclass
class Batch:
    """``inputs``: keyword arguments of the model's forward (input_ids [rows, length], picture tensors
    [pictures, ...], and what the layout needs); ``labels`` and ``samples``, the number of the sample that a position
    belongs to: [rows, length]; ``sources`` and ``ids``: one a sample."""

    inputs: dict[str, Tensor]
    labels: Tensor
    samples: Tensor
    sources: list[str]
    ids: list[str]

    @property
    def has_pictures(self) -> bool:
        return not self.inputs.keys() <= {"input_ids", "attention_mask", "position_ids"}

    def to(self, device: torch.device, non_blocking: bool = False) -> Batch:
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        return self._mapped(Tensor.pin_memory)

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        inputs = {name: change(tensor) for name, tensor in self.inputs.items()}
        return Batch(inputs, change(self.labels), change(self.samples), self.sources, self.ids)


class Collate:
    """Padded: to the longest sample of the batch, on the right for training, on the left for generation.

    Args:
        pad_id: fills the padding; it is masked whatever it is.
        padding_free: the other layout; a sample's first token is never predicted from the sample before it.
    """

    def __init__(self, pad_id: int, side: Literal["left", "right"] = "right", padding_free: bool = False) -> None:
        self.pad_id = pad_id
        self.side = side
        self.padding_free = padding_free

    def __call__(self, encoded: Sequence[Encoded]) -> Batch:
        batch = self._flattened(encoded) if self.padding_free else self._padded(encoded)
        for name in dict.fromkeys(name for sample in encoded for name in sample.pixels):
            batch.inputs[name] = _joined([sample.pixels[name] for sample in encoded if name in sample.pixels])
        return batch

    def _flattened(self, encoded: Sequence[Encoded]) -> Batch:
        lengths = [len(sample.input_ids) for sample in encoded]
        labels = [torch.cat([sample.labels.new_tensor([IGNORE]), sample.labels[1:]]) for sample in encoded]
        inputs = {
            "input_ids": torch.cat([sample.input_ids for sample in encoded])[None],
            "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        }
        samples = torch.repeat_interleave(torch.arange(len(encoded)), torch.tensor(lengths))[None]
        return self._batch(inputs, torch.cat(labels)[None], samples, encoded)

    def _padded(self, encoded: Sequence[Encoded]) -> Batch:
        length = max(len(sample.input_ids) for sample in encoded)
        inputs = {
            "input_ids": self._rows([s.input_ids for s in encoded], length, self.pad_id),
            "attention_mask": self._rows([torch.ones_like(s.input_ids) for s in encoded], length, 0),
        }
        samples = torch.arange(len(encoded))[:, None].expand(-1, length).contiguous()
        return self._batch(inputs, self._rows([s.labels for s in encoded], length, IGNORE), samples, encoded)

    def _rows(self, rows: list[Tensor], length: int, value: int) -> Tensor:
        out = rows[0].new_full((len(rows), length), value)
        for index, row in enumerate(rows):
            place = slice(0, len(row)) if self.side == "right" else slice(length - len(row), length)
            out[index, place] = row
        return out

    @staticmethod
    def _batch(inputs: dict[str, Tensor], labels: Tensor, samples: Tensor, encoded: Sequence[Encoded]) -> Batch:
        return Batch(inputs, labels, samples, [s.source for s in encoded], [s.id for s in encoded])


def _joined(pictures: list[Tensor]) -> Tensor:
    """All pictures, [pictures, ...]. Some processors cut a picture into tiles, [pictures, tiles, ..., height, width];
    one of fewer tiles is filled up with empty ones, as those processors do within a batch of their own."""
    most = max(picture.shape[1] for picture in pictures) if pictures[0].ndim >= 4 else 0
    return torch.cat([_filled(picture, most) if picture.ndim >= 4 else picture for picture in pictures])


def _filled(picture: Tensor, tiles: int) -> Tensor:
    empty = picture.new_zeros(picture.shape[0], tiles - picture.shape[1], *picture.shape[2:])
    return torch.cat([picture, empty], dim=1)
