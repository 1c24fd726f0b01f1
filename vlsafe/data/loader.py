"""The training loader: reads the Mixture by step number, and can be continued at any of its batches."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from vlsafe.data.collate import Batch, Collate
from vlsafe.data.encoding import Encoded, Encoding
from vlsafe.data.grouping import Grouping
from vlsafe.data.mixture import Mixture
from vlsafe.data.sources.base import Source


class MixtureDataset(Dataset[Encoded]):
    """Step number -> encoded sample. ``source`` of a sample is the name of its part."""

    def __init__(self, mixture: Mixture, sources: Mapping[str, Source], encoding: Encoding) -> None:
        self.mixture = mixture
        self.sources = sources
        self.encoding = encoding

    def __len__(self) -> int:
        return len(self.mixture)

    def __getitem__(self, step: int) -> Encoded:
        began = time.perf_counter()
        part, record = self.mixture.at(step)
        encoded = self.encoding.sample(self.sources[part][record])
        encoded.source = part
        encoded.seconds = time.perf_counter() - began
        return encoded


class StepSampler(Sampler[list[int]]):
    """Micro-batches of step numbers for one rank, in one epoch.

    A global micro-batch is ``batch_size * world_size`` consecutive steps, of which rank r takes the r-th block; so
    the global order of samples is the same for every world size. The last global batch is filled up from the start
    of the next pass, which keeps ranks in step.

    Args:
        samples: steps in one pass of the mixture.
        batch_size: samples a rank and micro-batch.
        grouping: another order inside windows of steps; None is that of the steps.
    """

    def __init__(
        self, samples: int, batch_size: int, rank: int = 0, world_size: int = 1, grouping: Grouping | None = None
    ) -> None:
        self.samples = samples
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.grouping = grouping
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        return -(-self.samples // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[int]]:
        samples = len(self) * self.batch_size * self.world_size
        first = self.epoch * samples
        for batch in range(self.start, len(self)):
            offset = (batch * self.world_size + self.rank) * self.batch_size
            places = range(offset, offset + self.batch_size)
            grouping = self.grouping
            yield [first + place if grouping is None else grouping.at(place, first, samples) for place in places]


@dataclass
class Loading:
    """What delivering samples took: ``working`` seconds of the workers (of this process where there are none) to read,
    decode and encode ``samples``, and ``waiting`` seconds of this process for its next batch. ``changes``: what of them
    was not taken as it stands, as in Encoded."""

    samples: int = 0
    working: float = 0.0
    waiting: float = 0.0
    changes: Counter[str] = field(default_factory=Counter)

    @property
    def per_worker(self) -> float:
        """Samples a second that one worker delivers."""
        return self.samples / self.working if self.working else 0.0


class MixtureLoader(DataLoader):
    """A DataLoader over a Mixture that Lightning can stop and continue within an epoch.

    ``loading`` says how fast the workers were and how long the training loop waited for them.
    ``state_dict`` counts the batches that the training loop has received, not those that workers have prepared
    ahead, so that no sample is lost or seen twice after a resume.
    """

    def __init__(self, dataset: MixtureDataset, sampler: StepSampler, collate: Collate, **options: Any) -> None:
        own = torch.Generator()  # starting a loader draws a number: not from the generator that others share
        super().__init__(dataset, batch_sampler=sampler, collate_fn=collate, generator=own, **options)
        self._steps = sampler
        self._epoch = 0
        self._received = 0
        self.loading = Loading()

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self._epoch, "received": self._received}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._epoch, self._received = state["epoch"], state["received"]

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        if self._received >= len(self._steps):  # Lightning stops at the last batch, without asking for one more
            self._epoch, self._received = self._epoch + 1, 0
        self._steps.epoch, self._steps.start = self._epoch, self._received
        batches = iter(super().__iter__())
        while (batch := self._next(batches)) is not None:
            self._received += 1
            yield batch

    def _next(self, batches: Iterator[Batch]) -> Batch | None:
        began = time.perf_counter()
        batch = next(batches, None)
        self.loading.waiting += time.perf_counter() - began
        if batch is not None:
            self.loading.samples += len(batch.ids)
            self.loading.working += batch.seconds
            self.loading.changes.update(batch.changes)
        return batch
