"""``bf16-mixed``: what trains is float32 through and through, products are in bfloat16, and no step is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from fitting import FROZEN, FULL, LORA, Seeded, data, files, trainer
from processes import saved, together
from short_run import strategy
from tiny import VISION, composed, language_model, save_tokenizer
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from vlsafe import PretrainedVLLM, SafetyFineTuning
from vlsafe.models.components import Components, Tuning
from vlsafe.strategies.shards import whole

# --- types, and losses on one device and two

SLOW = 1e-3
TABLES = {
    "lora": Components(FROZEN, FROZEN, replace(LORA, learning_rate=SLOW)),
    "full": Components(*[replace(FULL, learning_rate=SLOW)] * 3),
    "mixed": Components(FROZEN, replace(FULL, learning_rate=SLOW), replace(LORA, learning_rate=SLOW)),
}
ROUNDING = 5e-3
"""How far losses may lie apart, relatively: products keep 8 bits, and rows are added in other orders."""


class Types(L.Callback):
    """Types of weights, gradients and moments after a step, and of what linear layers and convolutions give."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.found: dict[str, set[torch.dtype]] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for name, layer in pl_module.named_modules():
            if isinstance(layer, nn.Linear | nn.Conv2d) and "original_module" not in name:
                layer.register_forward_hook(lambda *told: self._see("products", told[2]))
                if "lora_A" in name:
                    layer.register_forward_hook(lambda *told: self._see("adapter inputs", told[1][0]))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))
        for parameter in pl_module.parameters():
            self._see("trained" if parameter.requires_grad else "frozen", parameter)
            if parameter.requires_grad:
                self._see("gradients", parameter.grad)
                for moment in ("exp_avg", "exp_avg_sq"):
                    self._see("moments", trainer.optimizers[0].state[parameter][moment])

    def _see(self, what: str, tensor: Any) -> None:
        self.found.setdefault(what, set()).add(tensor.dtype)


def trained(folder: Path, table: str, name: str, world: int) -> dict[str, Any]:
    language = language_model(folder / "tokenizer")
    backbone = Seeded("clip", language, vision_weights=VISION["clip"], attention="sdpa", dtype="bfloat16")
    tuned, seen = SafetyFineTuning(backbone, TABLES[table], warmup_ratio=0.0, schedule="constant"), Types()
    made = trainer(
        folder, max_steps=4, devices=world, strategy=strategy(name), precision="bf16-mixed", callbacks=[seen]
    )
    made.fit(tuned, datamodule=data(folder, batch_size=4 // world))
    told = {(row["component"], row["dtype"], row["frozen_dtype"]) for row in tuned.trained if row["trainable"]}
    return {"losses": seen.losses, "types": seen.found, "table": told}


def both(folder: Path, table: str) -> None:
    for name in ("ddp", "fsdp2"):
        torch.save(trained(folder, table, name, 2), folder / f"{name}-{torch.distributed.get_rank()}.pt")


@pytest.mark.parametrize("table", TABLES)
def test_types_and_losses_on_one_device_and_on_two_processes(table: str, tmp_path: Path) -> None:
    save_tokenizer(tmp_path / "tokenizer")
    files(tmp_path)
    alone = trained(tmp_path, table, "single", 1)
    together(2, both, tmp_path, table)
    runs = [alone, *(saved(tmp_path / f"{name}-{rank}.pt") for name in ("ddp", "fsdp2") for rank in (0, 1))]
    for run in runs:
        for what in ("trained", "gradients", "moments"):
            assert run["types"][what] == {torch.float32}, what
        assert run["types"]["frozen"] == {torch.bfloat16}  # of "full", layers that are never read
        assert run["types"]["products"] == {torch.bfloat16}
        assert run["types"].get("adapter inputs", {torch.bfloat16}) == {torch.bfloat16}  # no copy of them in float32
        assert run["losses"] == pytest.approx(alone["losses"], rel=ROUNDING)
        assert run["table"] == alone["table"] and {dtype for _, dtype, _ in run["table"]} == {"float32"}


# --- no step is lost

RECIPES = {
    "LoRA 2e-4, projector 2e-5": Components(
        FROZEN, Tuning("full", 2e-5), Tuning("lora", 2e-4, rank=8, alpha=16, dropout=0.0)
    ),
    "full 1e-5": Components(FROZEN, Tuning("full", 1e-5), Tuning("full", 1e-5)),
}
STEPS = 20
WIDE = dict(hidden_size=64, intermediate_size=128, num_attention_heads=4)


def checkpoint(folder: Path) -> Path:
    """In bfloat16, so that either run begins with the same weights."""
    language = language_model(save_tokenizer(folder / "tokenizer"), **WIDE, num_key_value_heads=4)
    backbone = composed(folder / "tokenizer", language=language)
    backbone.encoder.weights = VISION["clip"] | WIDE  # type: ignore[attr-defined]
    torch.manual_seed(0)
    backbone.load_model().to(torch.bfloat16).save_pretrained(folder / "checkpoint")
    backbone.processor.save_pretrained(folder / "checkpoint")
    return folder / "checkpoint"


def updates(
    folder: Path, recipe: str, dtype: Any, precision: Any, start: dict[str, Tensor] | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What trains, before and by how much it moved. ``start``: take these weights first."""
    backbone = PretrainedVLLM(str(folder / "checkpoint"), attention="sdpa", dtype=dtype)
    tuned = SafetyFineTuning(backbone, RECIPES[recipe])
    tuned.configure_model()
    trains = {name: p for name, p in tuned.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, values in (start or {}).items():
            trains[name].copy_(values)
    before = {name: whole(p).detach().clone() for name, p in trains.items()}
    made = trainer(folder, precision=precision, max_steps=STEPS)
    made.fit(tuned, datamodule=data(folder, batch_size=4, samples=4 * STEPS))
    return before, {name: p.detach() - before[name] for name, p in trains.items()}


@pytest.mark.parametrize("recipe", RECIPES)
def test_weights_move_as_in_float32(recipe: str, tmp_path: Path) -> None:
    """Of the weights that a run in float32 moves, and in the same direction. Kept in bfloat16, they would not."""
    checkpoint(files(tmp_path))
    before, mixed = updates(tmp_path, recipe, "bfloat16", "bf16-mixed")
    _, single = updates(tmp_path, recipe, "float32", "32-true", before)
    for part in ("multi_modal_projector", "language_model"):
        names = [name for name in before if part in name]
        start, ours, theirs = (torch.cat([each[n].flatten() for n in names]) for each in (before, mixed, single))
        moved = theirs != 0
        share = float((ours[moved] != 0).float().mean())
        cosine = float(cosine_similarity(ours, theirs, dim=0))
        halved = float(((start.bfloat16() + theirs.bfloat16()) != start.bfloat16())[moved].float().mean())
        print(
            f"{recipe}, {part}: {int(moved.sum()):,} of {len(moved):,} weights moved in float32, "
            f"{100 * share:.2f} % of them in bf16-mixed (rounded to bfloat16 once: {100 * halved:.0f} %); "
            f"cosine of the updates {cosine:.5f}"
        )
        assert share >= 0.99 and cosine >= 0.99
