"""The three sides of ``train_peers.py``: each trains one :class:`Work` and tells its losses and when steps ended."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import lightning as L
import torch
from peer_work import CLIP_NORM, Work, keep_frozen_in_eval, peer_collate, peer_dataset
from transformers import Trainer, TrainerCallback, TrainingArguments


@dataclass
class Trained:
    """Of every step: the mean loss of its supervised tokens, and when it ended, by the clock and by the processor time
    that this process had used until then."""

    losses: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def mark(self) -> None:
        self.ends.append(time.perf_counter())
        self.processor.append(time.process_time())


def vlsafe(work: Work) -> Trained:
    """A plain ``fit`` without evaluation, checkpoints and report."""
    watch = _Watch()
    off = dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary", "logger"), False)
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            **off,
            accelerator="cpu",
            devices=1,
            precision="64-true" if work.dtype is torch.float64 else "32-true",
            max_steps=work.steps,
            limit_val_batches=0,
            gradient_clip_val=CLIP_NORM,
            use_distributed_sampler=False,
            callbacks=[watch],
            default_root_dir=folder,
        )
        trainer.fit(work.module, datamodule=work.data)
    return watch.trained


class _Watch(L.Callback):
    def __init__(self) -> None:
        self.trained = Trained()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.trained.mark()
        self.trained.losses.append(float(trainer.callback_metrics["train/loss"]))


def hugging_face(work: Work) -> Trained:
    """transformers' Trainer. It too divides a step's loss by its supervised tokens (``num_items_in_batch``)."""
    with tempfile.TemporaryDirectory() as folder:
        return _peer(Trainer, TrainingArguments(folder, **_arguments(work)), work)


def trl(work: Work) -> Trained:
    """TRL's SFTTrainer, with what it turns on by itself (bf16, recomputing) off as on the other sides."""
    from trl import SFTConfig, SFTTrainer

    with tempfile.TemporaryDirectory() as folder:
        ready = dict(dataset_kwargs={"skip_prepare_dataset": True}, max_length=None)
        arguments = SFTConfig(folder, **_arguments(work), **ready)
        return _peer(partial(SFTTrainer, processing_class=work.module.backbone.processor), arguments, work)


def _arguments(work: Work) -> dict[str, Any]:
    return dict(
        max_steps=work.steps,
        per_device_train_batch_size=work.data.batch_size,
        train_sampling_strategy="sequential",
        max_grad_norm=CLIP_NORM,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def _peer(make: Callable[..., Trainer], arguments: TrainingArguments, work: Work) -> Trained:
    keep_frozen_in_eval(work)
    trained = Trained()
    losses: list[torch.Tensor] = []
    trainer = make(
        model=work.module.model,
        args=arguments,
        train_dataset=peer_dataset(work),
        data_collator=partial(peer_collate, work),
        optimizers=work.optimizer(),
        callbacks=[_PeerWatch(trained)],
    )
    own_loss = trainer.compute_loss

    def recorded(*args: Any, **kwargs: Any) -> Any:
        loss = own_loss(*args, **kwargs)
        losses.append(loss.detach())
        return loss

    trainer.compute_loss = recorded
    trainer.train()
    trained.losses = [float(loss) for loss in losses]
    return trained


class _PeerWatch(TrainerCallback):
    def __init__(self, trained: Trained) -> None:
        self._trained = trained

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._trained.mark()


SIDES: dict[str, Callable[[Work], Trained]] = {"trainer": hugging_face, "trl": trl, "vlsafe": vlsafe}
