"""What a step has to carry: lengths, supervised tokens and pictures of the config's own samples."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any

from PIL import Image
from torch import Tensor

from vlsafe.data.datamodule import ConversationData
from vlsafe.models.backbones.base import Backbone

LOOKED_AT = 256
"""Samples that are encoded, in whole micro-batches spread evenly over the epoch."""

SUPERVISED_SHARE = 0.16
"""Supervised share of a sample where no data can be read: that of VLGuard with CLIP-336's 576 picture tokens."""


@dataclass(frozen=True)
class Load:
    """One micro-batch: ``rows`` of ``length`` tokens, padding included; ``supervised`` tokens in all of them;
    ``pictured``: samples that have pictures."""

    rows: int
    length: int
    supervised: int
    pictured: int


@dataclass(frozen=True)
class Answers:
    """Of an evaluation in the run: ``rows`` of prompts answered together, ``new_tokens`` of an answer at most."""

    rows: int
    new_tokens: int


@dataclass(frozen=True)
class Workload:
    """Of each sample looked at: ``tokens``, ``supervised`` tokens, and whether it has pictures (``pictured``), in the
    order of micro-batches of ``rows``.

    ``answers``: of the evaluations before and after; None where there are none. ``sight``: the processor's picture
    tensors of one sample, the largest. ``samples``: in an epoch. ``known``: how the lengths are known, in words.
    """

    rows: int
    tokens: list[int]
    supervised: list[int]
    pictured: list[bool]
    sight: dict[str, Tensor]
    samples: int
    padding_free: bool
    known: str
    answers: Answers | None = None

    def typical(self) -> Load:
        """A mean micro-batch: time is reckoned with it."""
        padded = self.mean_length if self.padding_free else fmean(max(batch) for batch in self._batches())
        return Load(self.rows, round(padded), round(self.rows * fmean(self.supervised)), self._with_pictures())

    def heaviest(self) -> Load:
        """A micro-batch that memory must hold: every row as long as the longest sample, and as many pictures as any."""
        sums = [sum(batch) / len(batch) for batch in self._batches()]
        length = max(sums) if self.padding_free else max(self.tokens)
        pictured = self.rows if any(self.pictured) else 0
        return Load(self.rows, round(length), self.rows * max(self.supervised), pictured)

    def prompts(self, answers: Answers) -> Load:
        """A batch of prompts, each as long as the longest sample and with its picture, if any has one."""
        return Load(answers.rows, max(self.tokens), 0, answers.rows if any(self.pictured) else 0)

    @property
    def mean_length(self) -> float:
        return fmean(self.tokens)

    def _with_pictures(self) -> int:
        return round(self.rows * fmean(self.pictured))

    def _batches(self) -> list[list[int]]:
        return [self.tokens[start : start + self.rows] for start in range(0, len(self.tokens), self.rows)]


def sampled(data: ConversationData, backbone: Backbone) -> Workload:
    """Encode some hundred samples of the config's mixture. Raises DataError where the data are not there."""
    mixture = data.open(backbone)
    encoding = data.encoding(backbone)
    batches = max(1, min(LOOKED_AT, len(mixture)) // data.batch_size)
    stride = max(1, len(mixture) // data.batch_size // batches) * data.batch_size
    encoded, pictured = [], []
    for step in (first + place for first in range(0, batches * stride, stride) for place in range(data.batch_size)):
        part, record = mixture.at(step)
        conversation = data.sources[part][record]
        encoded.append(encoding.sample(conversation))
        pictured.append(bool(conversation.images))
    largest = max(encoded, key=lambda sample: sum(tensor.numel() for tensor in sample.pixels.values()))
    return Workload(
        rows=data.batch_size,
        tokens=[len(sample.input_ids) for sample in encoded],
        supervised=[sample.supervised for sample in encoded],
        pictured=pictured,
        sight=largest.pixels,
        samples=len(mixture),
        padding_free=data.padding_free,
        known=f"measured on {len(encoded)} of {len(mixture):,} samples",
    )


def assumed(data: ConversationData, backbone: Backbone, tokens: int, samples: int) -> Workload:
    """Every sample as long as ``tokens``, with one picture; for a machine without the data."""
    blank: Any = backbone.processor.image_processor(Image.new("RGB", (336, 336)), return_tensors="pt")
    return Workload(
        rows=data.batch_size,
        tokens=[tokens],
        supervised=[max(1, round(tokens * SUPERVISED_SHARE))],
        pictured=[True],
        sight={name: value for name, value in blank.items() if isinstance(value, Tensor)},
        samples=samples,
        padding_free=data.padding_free,
        known=f"as given, {SUPERVISED_SHARE:.0%} of tokens supervised, a picture in every sample",
    )
