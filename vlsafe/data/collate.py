"""Encoded samples -> one batch. Padding is masked by position, never by token id (pitfalls A4).

Two layouts. *Padded*: one row a sample. *Padding-free*: all samples one after the other in a single row, whose
``position_ids`` start again at each sample and which has no attention mask; transformers reads that as a
block-diagonal mask, so samples do not see each other (pitfalls F1). Their bounds go along under the names of
transformers' FlashAttentionKwargs, so that no kernel asks the GPU for them. Steps and samples per step stay the same::

    samples  a b c | d e        padded         a b c      padding-free   a b c d e
                                               d e .      position_ids   0 1 2 0 1
                                                          cu_seq_lens_q  0 3 5
                                                          max_length_q   3
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor

from vlsafe.data.encoding import IGNORE, Encoded
from vlsafe.errors import ConfigError

_BOUNDS = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")
_TEXT = {"input_ids", "attention_mask", "position_ids", "mm_token_type_ids", "token_type_ids", *_BOUNDS}
"""Inputs that a batch without pictures has too."""


@dataclass
class Batch:
    """``inputs``: keyword arguments of the model's forward (input_ids [rows, length], picture tensors
    [pictures, ...], and what the layout needs; all are tensors but ``max_length_q`` and ``max_length_k``);
    ``labels`` and ``samples``, the number of the sample that a position belongs to: [rows, length]; ``sources`` and
    ``ids``: one a sample; ``seconds`` and ``changes``: of all samples, as in Encoded."""

    inputs: dict[str, Any]
    labels: Tensor
    samples: Tensor
    sources: list[str]
    ids: list[str]
    seconds: float = 0.0
    changes: Counter[str] = field(default_factory=Counter)

    @property
    def has_pictures(self) -> bool:
        return not self.inputs.keys() <= _TEXT

    def to(self, device: torch.device, non_blocking: bool = False) -> Batch:
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        return self._mapped(Tensor.pin_memory)

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        inputs = {name: change(each) if isinstance(each, Tensor) else each for name, each in self.inputs.items()}
        return replace(self, inputs=inputs, labels=change(self.labels), samples=change(self.samples))


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
        for name in dict.fromkeys(name for sample in encoded for name in sample.per_token):
            batch.inputs[name] = self._per_token([s.per_token.get(name) for s in encoded], batch.labels)
        by_row = "cross_attention_mask" in batch.inputs
        for name in dict.fromkeys(name for sample in encoded for name in sample.pixels):
            pictures = [sample.pixels.get(name) for sample in encoded]
            batch.inputs[name] = _by_row(pictures) if by_row else _joined([p for p in pictures if p is not None])
        return batch

    def _flattened(self, encoded: Sequence[Encoded]) -> Batch:
        named = next((name for sample in encoded for name in sample.per_token), None)
        if named is not None:
            raise ConfigError(
                f"padding_free cannot lay out {named}, which this model wants of every token; turn it off"
            )
        lengths = [len(sample.input_ids) for sample in encoded]
        labels = [torch.cat([sample.labels.new_tensor([IGNORE]), sample.labels[1:]]) for sample in encoded]
        inputs: dict[str, Any] = {
            "input_ids": torch.cat([sample.input_ids for sample in encoded])[None],
            "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        }
        cumulative = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
        inputs |= dict(zip(_BOUNDS, (cumulative, cumulative, max(lengths), max(lengths)), strict=True))
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

    def _per_token(self, values: list[Tensor | None], labels: Tensor) -> Tensor:
        """[rows, length, ...]; zero in the padding, and all over a row that has none."""
        present = [value for value in values if value is not None]
        shape = [max(sizes) for sizes in zip(*(value.shape[1:] for value in present), strict=True)]
        out = present[0].new_zeros(*labels.shape, *shape)
        for row, value in zip(out, values, strict=True):
            if value is not None:
                start = 0 if self.side == "right" else len(row) - len(value)
                row[(slice(start, start + len(value)), *(slice(size) for size in value.shape[1:]))] = value
        return out

    @staticmethod
    def _batch(inputs: dict[str, Any], labels: Tensor, samples: Tensor, encoded: Sequence[Encoded]) -> Batch:
        seconds = sum(sample.seconds for sample in encoded)
        changes = sum((sample.changes for sample in encoded), Counter[str]())
        sources, ids = [s.source for s in encoded], [s.id for s in encoded]
        return Batch(inputs, labels, samples, sources, ids, seconds, changes)


def _joined(pictures: list[Tensor]) -> Tensor:
    """All pictures, [pictures, ...]. Some processors cut a picture into tiles, [pictures, tiles, ..., height, width];
    one of fewer tiles is filled up with empty ones, as those processors do within a batch of their own."""
    most = max(picture.shape[1] for picture in pictures) if pictures[0].ndim >= 4 else 0
    return torch.cat([_filled(picture, most) if picture.ndim >= 4 else picture for picture in pictures])


def _by_row(pictures: list[Tensor | None]) -> Tensor:
    """[rows, pictures, ...] for models that look a token's pictures up by its row; filled up with empty pictures.
    Each of ``pictures`` is [1, pictures, ...]; None where the row has none."""
    present = [picture for picture in pictures if picture is not None]
    out = present[0].new_zeros(len(pictures), max(p.shape[1] for p in present), *present[0].shape[2:])
    for row, picture in zip(out, pictures, strict=True):
        if picture is not None:
            row[: picture.shape[1]] = picture[0]
    return out


def _filled(picture: Tensor, tiles: int) -> Tensor:
    empty = picture.new_zeros(picture.shape[0], tiles - picture.shape[1], *picture.shape[2:])
    return torch.cat([picture, empty], dim=1)
