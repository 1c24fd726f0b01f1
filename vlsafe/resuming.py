"""Going on with a run: from its newest whole checkpoint, and only where config and data are still the same."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loops.fit_loop import _FitLoop

import vlsafe
from vlsafe.checkpointing import AtomicCheckpointIO, newest, newest_whole, require_whole, rest_of
from vlsafe.conversation import Conversation
from vlsafe.data.datamodule import ConversationData
from vlsafe.environment import git_revision
from vlsafe.errors import ConfigError, DataError, VlsafeError

RECORD = "vlsafe_run"
_MOST = 10_000
"""Records of a part that its fingerprint reads, spread evenly over a longer one."""
_OF_THE_PLACE = (
    "run_dir", "cache_dir", "resume", "resume_changed", "ckpt_path", "verbose", "weights_only", "config",
    "checkpoints", "evaluation", "optimizer", "lr_scheduler", "trainer.accelerator", "trainer.strategy",
    "trainer.devices", "trainer.num_nodes", "trainer.logger", "trainer.callbacks", "trainer.plugins",
    "trainer.default_root_dir", "trainer.log_every_n_steps", "trainer.profiler", "trainer.max_time",
    "trainer.enable_progress_bar", "trainer.enable_checkpointing", "trainer.enable_model_summary",
    "data.init_args.num_workers", "data.init_args.batch_size", "model.init_args.activation_checkpointing",
    "model.init_args.compile",
)  # fmt: skip
"""Keys that say where and how fast a run goes, not where it ends. Of the batch size, what counts is how many samples
all processes see at a time, which is recorded apart."""

logger = logging.getLogger(__name__)


class CheckpointPlan:
    """When a run keeps a checkpoint.

    Args:
        every: optimizer steps between two of them.
        keep: how many stay; an older one goes when a new one is whole.
    """

    def __init__(self, every: int = 50, keep: int = 2) -> None:
        if every < 1 or keep < 1:
            raise ConfigError(f"checkpoints: every is {every} and keep {keep}; both must be at least 1")
        self.every = every
        self.keep = keep

    def callback(self, directory: Path) -> ModelCheckpoint:
        return ModelCheckpoint(
            directory,
            filename="{step}",
            every_n_train_steps=self.every,
            monitor="step",
            mode="max",
            save_top_k=self.keep,
            enable_version_counter=False,
        )


class RunIdentity(Callback):
    """Writes into every checkpoint which config, data and code it comes from; refuses to go on from another's.

    Args:
        config: dotted key -> value, of the whole run and without secrets.
        resumed: the checkpoint that the run goes on from, if any. It is compared before weights load, when Lightning's
            Trainer does not know it yet. The first process reads it through, once, to see that it is whole.
        changed: go on all the same, saying what differs.
        newest: of ``--resume auto``: ``resumed`` is the newest of its folder, and where it is damaged the one before it
            is taken.
    """

    def __init__(
        self, config: Mapping[str, Any], resumed: Path | None = None, changed: bool = False, newest: bool = False
    ) -> None:
        self.config = {
            key: json.dumps(value, default=str, sort_keys=True)
            for key, value in config.items()
            if not any(key == ours or key.startswith(f"{ours}.") for ours in _OF_THE_PLACE)
        }
        self.resumed = resumed
        self.changed = changed
        self.newest = newest
        self.record: dict[str, Any] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Raises ConfigError with every key that differs from the checkpoint's, DataError for a damaged one."""
        if stage != "fit":
            return
        data: ConversationData = trainer.datamodule
        self.record = {
            "config": self.config,
            "config_sha256": hashlib.sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest(),
            "samples_at_a_time": data.batch_size * trainer.world_size,
            "data": data_fingerprints(data),
            "vlsafe": vlsafe.__version__,
            "git": git_revision(),
        }
        taken = self._agreed(trainer)
        if taken is not None:
            self._compare(taken, rest_of(taken).get(RECORD))

    def _agreed(self, trainer: L.Trainer) -> Path | None:
        """The checkpoint that all processes go on from, found whole by the first. Whoever reads it is told."""
        found: Path | VlsafeError | None = None
        if trainer.is_global_zero:
            try:
                found = self._whole()
            except VlsafeError as error:  # the others wait for it
                found = error
        found = trainer.strategy.broadcast(found)
        if isinstance(found, VlsafeError):
            raise found
        if (found is None) != (self.resumed is None):
            raise DataError(
                f"process {trainer.global_rank} goes on from {self.resumed or 'nothing'}, and the first from "
                f"{found or 'nothing'}: all must see the same run_dir"
            )
        files = trainer.strategy.checkpoint_io
        if found is not None and self.resumed is not None and isinstance(files, AtomicCheckpointIO):
            files.whole[self.resumed] = found
        return found

    def _whole(self) -> Path | None:
        if self.resumed is None:
            return None
        if not self.newest:
            require_whole(self.resumed)
            return self.resumed
        found = newest_whole(self.resumed.parent)
        if found is None:
            raise DataError(f"no checkpoint in {self.resumed.parent} is whole; remove them, or take a new run_dir")
        logger.warning("resume auto: going on from %s", found)
        return found

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[RECORD] = self.record

    def _compare(self, path: Path, recorded: dict[str, Any] | None) -> None:
        if recorded is None:
            logger.warning("%s does not say which config and data it comes from; not compared", path)
            return
        if recorded["vlsafe"] != self.record["vlsafe"] or recorded["git"] != self.record["git"]:
            logger.warning("%s was written by another version of vlsafe, %s", path, recorded["vlsafe"])
        problems = [
            *_differences(recorded["config"], self.config),
            *_differences(recorded["data"], self.record["data"]),
            *_differences(
                {"data.batch_size x processes": recorded["samples_at_a_time"]},
                {"data.batch_size x processes": self.record["samples_at_a_time"]},
            ),
        ]
        if not problems:
            return
        if self.changed:
            for problem in problems:
                logger.warning("going on although %s", problem)
            return
        raise ConfigError(
            [
                *problems,
                f"so the run would not end as {path} began; take back what changed, start a new run_dir, or go on all "
                "the same with --resume_changed=true",
            ]
        )


class _ToTheEnd(_FitLoop):
    """Comes to ``on_train_end`` also where a run goes on from a checkpoint of its last step. Lightning's own loop skips
    everything then, and a run that was stopped while it exported or evaluated would end without model and report."""

    @property
    def skip(self) -> bool:
        return bool(self.trainer.limit_train_batches == 0 or self.max_batches == 0)


def to_the_end(trainer: L.Trainer) -> None:
    """Whatever step ``trainer`` goes on from, what follows the training is done."""
    lightnings = trainer.fit_loop
    trainer.fit_loop = _ToTheEnd(trainer, min_epochs=lightnings.min_epochs, max_epochs=lightnings.max_epochs)
    trainer.fit_loop.epoch_loop = lightnings.epoch_loop


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    return [f"{key} was {before.get(key, 'not there')}, is now {now.get(key, 'not there')}" for key in keys]


def data_fingerprints(data: ConversationData) -> dict[str, str]:
    """Part -> a hash of what it may draw: ids, texts and names of pictures, of at most 10,000 records; and the plan of
    the mixture. Pictures are not opened: ``data manifest`` is for those who want to be sure of every byte."""
    mixture = data.open()
    plan = [mixture.samples, mixture.seed, sorted(mixture.weights.items())]
    prints = {"data: plan of the mixture": hashlib.sha256(json.dumps(plan, default=int).encode()).hexdigest()[:16]}
    for name in data.part_names:
        pool, digest = mixture.pools[name], hashlib.sha256()
        digest.update(str(len(pool)).encode())
        for place in pool[:: max(1, -(-len(pool) // _MOST))]:
            for piece in _pieces(data.sources[name][int(place)]):
                digest.update(f"{len(piece)}:{piece}".encode())
        prints[f"data: records of part {name}"] = digest.hexdigest()[:16]
    return prints


def _pieces(conversation: Conversation) -> Iterator[str]:
    yield conversation.id
    for turn in conversation.turns:
        yield turn.role
        yield from (piece if isinstance(piece, str) else piece.name for piece in turn.content)


def checkpoint_to_resume(directory: Path) -> Path | None:
    """The newest checkpoint in ``directory``; None where the run has to begin, which is told on the log. Whether it is
    whole is for :class:`RunIdentity` to find out, once for all processes.

    What a process that was killed left half written is removed.
    """
    for leftover in directory.glob(".*.partial"):
        shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)
    found = newest(directory)
    if found is None:
        logger.warning("resume auto: nothing in %s yet, starting", directory)
    return found
