"""A Trainer, a module and data that fit in a tenth of a second, for the tests of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from tiny import VISION, alpaca_file, language_model, llava_file
from torch import Tensor

from vlsafe import ComposedVLLM, ConversationData, Part, SafetyFineTuning
from vlsafe.models.adaptation import Components, Tuning

RATE = 1e-2
FULL = Tuning("full", RATE)
LORA = Tuning("lora", RATE, rank=2, alpha=4)
FROZEN = Tuning()
POSTHOC = Components(FROZEN, FULL, LORA)
"""What the quickstart trains: the projector in full and adapters in the language model."""


class Seeded(ComposedVLLM):
    """Random weights that depend on nothing but a seed, wherever and whenever they are made; so do the adapters."""

    def load_model(self) -> Any:
        torch.manual_seed(0)
        return super().load_model()


def files(folder: Path, text: int = 12, pictures: int = 12) -> Path:
    alpaca_file(folder / "text.json", text)
    llava_file(folder / "pictures.json", pictures)
    return folder


def data(folder: Path, **options: Any) -> ConversationData:
    """Half text, half pictures; 16 samples an epoch."""
    parts = {
        "text": Part(f"alpaca:{folder / 'text.json'}", share=0.5),
        "pictures": Part(f"llava:{folder / 'pictures.json'}", share=0.5),
    }
    return ConversationData(**{"parts": parts, "samples": 16, "batch_size": 8} | options)


def module(
    tokenizer: Path, components: Components = POSTHOC, encoder: str = "clip", **options: Any
) -> SafetyFineTuning:
    backbone = Seeded(encoder, language_model(tokenizer), vision_weights=VISION[encoder], attention="sdpa")
    return SafetyFineTuning(backbone, components, **{"warmup_ratio": 0.0, "schedule": "constant"} | options)


def trainer(folder: Path, **options: Any) -> L.Trainer:
    quiet = dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary", "logger"), False)
    fixed = dict(accelerator="cpu", devices=1, use_distributed_sampler=False, num_sanity_val_steps=0)
    return L.Trainer(**quiet | fixed | {"default_root_dir": folder, "max_steps": 2} | options)


def tensors(tuned: SafetyFineTuning) -> dict[str, Tensor]:
    """A copy of every parameter and buffer, by its name in the original model or adapter."""
    assert tuned.model is not None
    return {name: tensor.detach().clone() for name, tensor in tuned.model.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in after.items() if not torch.equal(before[name], tensor)}


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


class Gradients(L.Callback):
    """The gradients that each optimizer step used."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor | None]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step > len(self.steps):
            trained = {n: p.grad for n, p in pl_module.named_parameters() if p.requires_grad}
            self.steps.append({name: None if grad is None else grad.clone() for name, grad in trained.items()})
