"""ConversationData: sources, mixture and encoding behind Lightning's data hooks."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning as L
from torch.utils.data import DataLoader, Dataset

from vlsafe.data.collate import Batch, Collate
from vlsafe.data.encoding import IGNORE, Encoded, Encoding
from vlsafe.data.grouping import Grouping, described
from vlsafe.data.loader import Loading, MixtureDataset, MixtureLoader, StepSampler
from vlsafe.data.manifest import replay
from vlsafe.data.mixture import Mixture, Part, check_parts
from vlsafe.data.selection import selected
from vlsafe.data.sources import open_source
from vlsafe.data.sources.base import Source
from vlsafe.data.tokens import tokens_per_record
from vlsafe.errors import ConfigError
from vlsafe.fetch.paths import resolved
from vlsafe.stopping import outlive_signals

log = logging.getLogger(__name__)


FILLING = ""
"""Id of a record that comes a second time, so that all processes have as many."""


class ConversationData(L.LightningDataModule):
    """Mixed conversations, encoded for the model in training.

    Args:
        parts: name -> source, which of its records (``where``, ``without``, ``balance``) and how much of it
            (``share``, ``count`` or ``repeat``).
        samples: samples of one epoch, where all parts have a share.
        share_of: what shares are shares of, ``samples`` or supervised ``tokens``. Tokens come in their shares over
            whole passes of the parts, by the mean of each part's records, counted on at most 2,000 of them: exact for
            a part of no more, estimated for a larger one.
        manifest: a file written by ``vlsafe data manifest`` to be replayed: the same records in the same order, or an
            error that names the records which differ. The rest of the config must ask for what it records.
        batch_size: samples a device and micro-batch; the global batch is ``batch_size x devices x
            trainer.accumulate_grad_batches``.
        group_by_modality_length: windows of so many global batches, in which samples with images and samples without
            come in global batches of their own, each sorted by length (:mod:`vlsafe.data.grouping`); None leaves the
            mixture's order. It spares padding, and no rank waits for another's images.
        seed: decides the order, with nothing else.
        num_workers: processes that decode and encode; 0 does it in the training process.
        max_length: most tokens a sample; None for no limit.
        too_long: what to do with a longer sample: ``error``, or ``truncate`` it there, counted, and train on what is
            left. One that would lose a picture or all that is supervised is an error in either case.
        padding_free: train on samples laid one after the other instead of padded rows; the same loss and steps,
            without the padding's cost. Only for backbones that support it.
        supervise: ``all`` assistant turns of a conversation, or the ``last``.
        validation: name -> source of held-out conversations, whose loss ``validate`` and ``test`` report.
        validation_limit: most conversations of each validation source, the first ones.
        prompts: source whose conversations ``predict`` answers (their last answer, if any, is left out).
    """

    def __init__(
        self,
        parts: dict[str, Part],
        samples: int | None = None,
        share_of: Literal["samples", "tokens"] = "samples",
        manifest: str | None = None,
        batch_size: int = 8,
        group_by_modality_length: int | None = None,
        seed: int = 0,
        num_workers: int = 0,
        max_length: int | None = 2048,
        too_long: Literal["error", "truncate"] = "error",
        padding_free: bool = False,
        supervise: Literal["all", "last"] = "all",
        validation: dict[str, str | dict[str, Any]] | None = None,
        validation_limit: int | None = None,
        prompts: str | dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_parts(parts, samples)
        if batch_size < 1:
            raise ConfigError(f"data.batch_size is {batch_size}, must be at least 1")
        if group_by_modality_length is not None and group_by_modality_length < 1:
            raise ConfigError(
                f"data.group_by_modality_length is {group_by_modality_length}: a window has at least 1 global batch"
            )
        self.parts = parts
        self.samples = samples
        self.share_of = share_of
        self.manifest = manifest
        self.batch_size = batch_size
        self.group_by_modality_length = group_by_modality_length
        self.seed = seed
        self.num_workers = num_workers
        self.padding_free = padding_free
        self.validation = validation or {}
        self.validation_limit = validation_limit
        self.prompts = prompts
        self._encoding_options: dict[str, Any] = {
            "max_length": max_length,
            "too_long": too_long,
            "supervise": supervise,
        }
        self.loading = Loading()
        self.sources: dict[str, Source] = {}
        self.mixture: Mixture | None = None

    def open(self, backbone: Any = None) -> Mixture:
        """Open and check every training source; the Mixture over them.

        Needs no model, except to count tokens (``share_of: tokens``); then ``backbone`` is by default that of the model
        in training.
        """
        if self.mixture is None:
            sources = {name: open_source(part.source) for name, part in self.parts.items()}
            if self.manifest is not None:
                path, parts = Path(resolved(self.manifest)), self.parts
                self.mixture, self.sources = replay(path, sources, parts, self.samples, self.seed, self.share_of)
            else:
                self.sources = {n: selected(sources[n], n, part, self.seed) for n, part in self.parts.items()}
                sizes = {name: len(source) for name, source in self.sources.items()}
                self.mixture = Mixture(self.parts, sizes, self.samples, self.seed, self._tokens(backbone))
        return self.mixture

    def _tokens(self, backbone: Any) -> dict[str, Fraction] | None:
        if self.share_of == "samples":
            return None
        encoding = self.encoding(backbone)
        means = {name: tokens_per_record(source, name, encoding, self.seed) for name, source in self.sources.items()}
        log.info("supervised tokens a record: %s", ", ".join(f"{n} {float(mean):.1f}" for n, mean in means.items()))
        return means

    def setup(self, stage: str) -> None:
        backbone = self.trainer.lightning_module.backbone
        if self.padding_free and not backbone.padding_free:
            raise ConfigError(
                f"data.padding_free: {type(backbone).__name__} is not known to keep samples apart without padding; "
                "set it to false"
            )
        if stage == "fit":
            self.open()

    @property
    def part_names(self) -> list[str]:
        return list(self.parts)

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches that a rank sees in one epoch."""
        return len(self._steps())

    def encoding(self, backbone: Any = None) -> Encoding:
        """The encoding of training samples for ``backbone``, by default that of the model in training."""
        backbone = backbone or self.trainer.lightning_module.backbone
        return Encoding(backbone.processor, backbone.system_prompt, **self._encoding_options)

    def train_dataloader(self) -> MixtureLoader:
        encoding = self.encoding()
        dataset = MixtureDataset(self.open(), self.sources, encoding)
        collate = Collate(encoding.tokenizer.pad_token_id, padding_free=self.padding_free)
        loader = MixtureLoader(dataset, self._steps(), collate, **self._loading())
        self.loading = loader.loading
        return loader

    def val_dataloader(self) -> DataLoader | list:
        return self._held_out()

    def test_dataloader(self) -> DataLoader | list:
        if not self.validation:
            raise ConfigError(
                "`test` reports the loss on data.validation, which this config does not name; add a source"
            )
        return self._held_out()

    def predict_dataloader(self) -> DataLoader:
        if self.prompts is None:
            raise ConfigError("`predict` answers the conversations of data.prompts; name a source, kind:path[#split]")
        return self._ordered(
            _Records({"prompts": open_source(self.prompts)}, self.encoding(), None, prompt=True), "left"
        )

    def _held_out(self) -> DataLoader | list:
        if not self.validation:
            return []
        sources = {name: open_source(spec) for name, spec in self.validation.items()}
        return self._ordered(_Records(sources, self.encoding(), self.validation_limit, prompt=False), "right")

    def _ordered(self, records: _Records, side: Literal["left", "right"]) -> DataLoader:
        collate = Collate(records.encoding.tokenizer.pad_token_id, side)
        rank, world = self.trainer.global_rank, self.trainer.world_size
        # Ranks that share a model must take as many steps as each other.
        mine = range(rank, -(-len(records) // world) * world, world)
        return DataLoader(records, batch_size=self.batch_size, sampler=mine, collate_fn=collate, **self._loading())

    def _steps(self) -> StepSampler:
        samples, trainer = len(self.open()), self.trainer
        grouping = None
        if self.group_by_modality_length is not None:
            batch = self.batch_size * trainer.world_size * trainer.accumulate_grad_batches
            grouping = Grouping(self._described, batch, self.group_by_modality_length, self.seed)
        return StepSampler(samples, self.batch_size, trainer.global_rank, trainer.world_size, grouping)

    def _described(self, step: int) -> tuple[bool, int]:
        part, record = self.open().at(step)
        return described(self.sources[part][record])

    def _loading(self) -> dict[str, Any]:
        # Workers that use several threads each would fight over the cores that training needs.
        workers = {"persistent_workers": True, "worker_init_fn": partial(_worker_begins)} if self.num_workers else {}
        return {
            "num_workers": self.num_workers,
            "pin_memory": self.trainer.strategy.root_device.type == "cuda",
            **workers,
        }

    def transfer_batch_to_device(self, batch: Batch, device: Any, dataloader_idx: int) -> Batch:
        return batch.to(device, non_blocking=True)


class _Records(Dataset[Encoded]):
    """Conversations of several sources one after the other; ``source`` of a sample is the name given here."""

    def __init__(self, sources: Mapping[str, Source], encoding: Encoding, limit: int | None, prompt: bool) -> None:
        self.encoding = encoding
        self.prompt = prompt
        self._sources = sources
        self._rows = [(n, i) for n, source in sources.items() for i in range(len(source))[:limit]]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Encoded:
        """One past the end begins again, with nothing that counts."""
        name, record = self._rows[index % len(self._rows)]
        conversation = self._sources[name][record]
        if self.prompt:
            turns = conversation.turns[:-1] if conversation.turns[-1].role == "assistant" else conversation.turns
            encoded = self.encoding.prompt(type(conversation)(conversation.id, name, turns, conversation.tags))
        else:
            encoded = self.encoding.sample(conversation)
        if index >= len(self._rows):
            encoded.labels = encoded.labels.new_full(encoded.labels.shape, IGNORE)
            encoded.id = FILLING
        encoded.source = name
        return encoded


def _worker_begins(_: int) -> None:
    import torch

    torch.set_num_threads(1)
    outlive_signals()
