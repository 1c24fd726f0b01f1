"""One short training run under any strategy, and what it leaves to be compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from every import FAMILIES, written
from fitting import FROZEN, FULL, LORA, POSTHOC, RATE, Seeded, data, tensors, trainer
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from tiny import VISION, language_model, save_tokenizer
from torch import Tensor

from vlsafe import PretrainedVLLM, SafetyFineTuning
from vlsafe.checkpointing import AtomicCheckpointIO
from vlsafe.data.collate import Batch
from vlsafe.models.backbones.base import Backbone
from vlsafe.models.components import Components
from vlsafe.models.export import export_model
from vlsafe.strategies.fsdp2 import FSDP2
from vlsafe.strategies.shards import whole

STEPS = 5
CLIP = 0.25
TABLES = {"full": Components(FULL, FULL, FULL), "lora": Components(FROZEN, FROZEN, LORA), "mixed": POSTHOC}


MEAN, WORST = 1e-3, 0.1
"""How far weights may lie apart, as shares of one step of Adam (1e-2): root mean square, and at worst. Sums over ranks
are added in another order than those over a batch, and where a gradient is next to nothing Adam makes a step of its
rounding."""


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> tuple[float, float]:
    """Root mean square and largest of the differences, in steps of Adam."""
    assert one.keys() == other.keys()
    far = torch.cat([(one[name] - other[name]).flatten() for name in one if one[name].is_floating_point()]) / RATE
    return float(far.pow(2).mean().sqrt()), float(far.abs().max())


def close(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    mean, worst = apart(one, other)
    return mean < MEAN and worst < WORST


class SeededCheckpoint(PretrainedVLLM):
    """A checkpoint whose adapters begin the same wherever they are made."""

    def load_model(self) -> Any:
        torch.manual_seed(0)
        return super().load_model()


COMPOSED = "composed"


def backbone_of(name: str, folder: Path) -> Backbone:
    """A family's checkpoint in ``folder``, or a model composed of random parts."""
    if name == COMPOSED:
        tokenizer = save_tokenizer(folder / "tokenizer")
        return Seeded("clip", language_model(tokenizer), vision_weights=VISION["clip"], attention="sdpa")
    family = next(family for family in FAMILIES if family.name == name)
    checkpoint = folder / name
    checkpoint.mkdir()
    return SeededCheckpoint(str(written(family, checkpoint)), attention="sdpa", dtype="float32", **family.options)


class Measured(SafetyFineTuning):
    """Remembers whether each step's batch had images, and the norm of its gradient before it was clipped."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.images = [*getattr(self, "images", []), batch.has_pictures]
        return super().training_step(batch, batch_idx)

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        assert all(p.grad is not None for p in parameters if p.numel())
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        self.norms = [*getattr(self, "norms", []), float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)]
        super().configure_gradient_clipping(optimizer, *args, **kwargs)


class Losses(L.Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if not trainer.fit_loop._should_accumulate():
            self.losses.append(float(trainer.callback_metrics["train/loss"]))


def strategy(name: str) -> Any:
    """Of processes that are there already."""
    made = {
        "single": lambda: "auto",
        "ddp": lambda: DDPStrategy(cluster_environment=LightningEnvironment()),
        "fsdp2": lambda: FSDP2(cluster_environment=LightningEnvironment()),
        "fsdp2, one file": lambda: FSDP2(sharded_checkpoints=False, cluster_environment=LightningEnvironment()),
        "hsdp": lambda: FSDP2(replicas=2, cluster_environment=LightningEnvironment()),
    }
    return made[name]()


def fit(
    backbone: Backbone,
    table: str,
    folder: Path,
    name: str = "single",
    world: int = 1,
    resume: Path | None = None,
    save: Path | None = None,
    samples: int = 2,
    callbacks: Sequence[L.Callback] = (),
    **options: Any,
) -> dict[str, Any]:
    """Losses, norms and weights after :data:`STEPS` steps; the checkpoint of step 3 is saved to ``save``, and what was
    trained beside it. ``options``: of the Trainer."""
    tuned, losses = Measured(backbone, TABLES[table], warmup_ratio=0.0, schedule="constant"), Losses()
    made = trainer(
        folder, max_steps=STEPS, devices=world, strategy=strategy(name), gradient_clip_val=CLIP,
        callbacks=[losses, *callbacks, *([SaveThird(save)] if save else [])], plugins=[AtomicCheckpointIO()], **options,
    )  # fmt: skip
    made.fit(tuned, datamodule=data(folder, batch_size=samples // world), ckpt_path=resume, weights_only=True)
    weights = {name: whole(tensor).clone() for name, tensor in tensors(tuned).items()}
    found = {"losses": losses.losses, "norms": tuned.norms, "weights": weights, "seen": tuned.seen}
    if save:
        export_model(tuned, save.with_suffix(".export"), card="")
        made.strategy.barrier()
    return found | {"images": tuned.images}


class SaveThird(L.Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == 3:
            trainer.save_checkpoint(self.path, weights_only=False)
