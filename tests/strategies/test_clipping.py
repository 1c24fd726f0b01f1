"""Gradients are clipped under mixed precision, with a fused optimizer, on one device and over processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from fitting import POSTHOC, data, files, module, trainer
from processes import saved, together
from short_run import strategy
from tiny import save_tokenizer
from torch import Tensor

from vlsafe.strategies.shards import whole

CASES = {"none": {}, "norm": dict(gradient_clip_val=0.1), "norm, not reached": dict(gradient_clip_val=1e3)}
CASES["value"] = dict(gradient_clip_val=1e-3, gradient_clip_algorithm="value")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tokenizer(tmp_path / "tokenizer")
    return files(tmp_path)


class Step(L.Callback):
    """The gradients that the optimizer's first step took, put together from all processes."""

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        trained = {name: p for name, p in pl_module.named_parameters() if p.requires_grad}
        self.gradients: dict[str, Tensor] = {name: whole(p.grad).clone() for name, p in trained.items()}
        self.fused = trainer.optimizers[0].defaults["fused"]


def gradients_of(folder: Path, name: str, world: int, **clip: Any) -> dict[str, Tensor]:
    step = Step()
    made = trainer(
        folder, max_steps=1, devices=world, strategy=strategy(name), precision="bf16-mixed", callbacks=[step], **clip
    )
    made.fit(module(folder / "tokenizer", POSTHOC), datamodule=data(folder, batch_size=4 // world))
    assert step.fused and made.global_step == 1
    return step.gradients


def all_cases(folder: Path, name: str, world: int) -> None:
    found = {case: gradients_of(folder, name, world, **clip) for case, clip in CASES.items()}
    if world == 1 or torch.distributed.get_rank() == 0:
        torch.save(found, folder / "gradients.pt")


@pytest.mark.parametrize(("name", "world"), [("single", 1), ("ddp", 2), ("fsdp2", 2)])
def test_clipped_gradients_are_those_computed_by_hand(name: str, world: int, folder: Path) -> None:
    if world == 1:
        all_cases(folder, name, world)
    else:
        together(world, all_cases, folder, name, world)
    found = saved(folder / "gradients.pt")
    free = found["none"]
    norm = sum(float(grad.double().pow(2).sum()) for grad in free.values()) ** 0.5
    assert 0.2 < norm < 1e3
    for key, grad in free.items():
        assert torch.allclose(found["norm"][key], grad * (0.1 / norm), rtol=1e-4, atol=1e-9), key
        assert torch.equal(found["norm, not reached"][key], grad)
        assert torch.equal(found["value"][key], grad.clamp(-1e-3, 1e-3))
    assert any((grad.abs() > 1e-3).any() for grad in free.values())
