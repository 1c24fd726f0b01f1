"""What FSDP2 sends and when, in which precision it computes, how long it waits, and what it refuses."""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning as L
import pytest
import torch
from fitting import FULL, Seeded, data, files, trainer
from lightning.pytorch.plugins.environments import LightningEnvironment
from processes import saved, together
from short_run import COMPOSED, STEPS, backbone_of, fit
from tiny import VISION, language_model, save_tokenizer
from torch import distributed

from vlsafe import SafetyFineTuning
from vlsafe.models.backbones.base import Backbone
from vlsafe.models.components import Components, Tuning
from vlsafe.models.consolidation import whole_state
from vlsafe.strategies.fsdp2 import FSDP2
from vlsafe.strategies.shards import whole


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    files(tmp_path)
    tokenizer = save_tokenizer(tmp_path / "tokenizer")
    return Seeded("clip", language_model(tokenizer), vision_weights=VISION["clip"], attention="sdpa")


# --- how long it waits ------------------------------------------------------------------------------------------------


def strategy_of(folder: Path, **options: Any) -> FSDP2:
    """With its processes connected."""
    made = FSDP2(cluster_environment=LightningEnvironment(), **options)
    trainer(folder, devices=int(os.environ["WORLD_SIZE"]), strategy=made)
    made.connect(L.LightningModule())
    made.setup_environment()
    return made


def timeouts(folder: Path, replicas: int) -> None:
    mesh = strategy_of(folder, replicas=replicas, timeout=7).mesh
    groups = [mesh.get_group(dimension) for dimension in range(mesh.ndim)]
    assert [group.size() for group in groups] == ([2, 2] if replicas == 2 else [4])
    found = {group._get_backend(torch.device("cpu")).options._timeout for group in groups}
    assert found == {timedelta(minutes=7)}
    distributed.barrier()  # the first holds the others' store


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_timeout_is_that_of_every_group(replicas: int, tmp_path: Path) -> None:
    together(4, timeouts, tmp_path, replicas)


def one_waits(folder: Path) -> None:
    """The first process; the other is late."""
    mesh = strategy_of(folder, replicas=2, timeout=0.05).mesh
    if distributed.get_rank() == 1:
        time.sleep(8)
        return
    began = time.monotonic()
    with pytest.raises(RuntimeError, match=r"[Tt]imed out"):
        distributed.all_reduce(torch.zeros(1), group=mesh.get_group("replicate"))
    assert 2 < time.monotonic() - began < 7


def test_a_process_waits_no_longer_than_the_timeout(tmp_path: Path) -> None:
    together(2, one_waits, tmp_path)


# --- what it sends ----------------------------------------------------------------------------------------------------


class Sent(L.Callback):
    """Of every micro-batch, how often its backward pass adds up over copies, and over pieces."""

    def __init__(self) -> None:
        self.counts: list[tuple[int, int]] = []

    def on_before_backward(self, *_: Any) -> None:
        kinds = ("all_reduce", "reduce_scatter_single")
        self.patches = [patch.object(distributed, kind, wraps=getattr(distributed, kind)) for kind in kinds]
        self.calls = [patch.start() for patch in self.patches]

    def on_after_backward(self, *_: Any) -> None:
        self.counts.append(tuple(call.call_count for call in self.calls))  # type: ignore[arg-type]
        for each in self.patches:
            each.stop()


def accumulates(backbone: Backbone, folder: Path, world: int) -> None:
    sent = Sent()
    run = fit(backbone, "full", folder, "hsdp", world, samples=4, callbacks=[sent], accumulate_grad_batches=2)
    if distributed.get_rank() == 0:
        torch.save({"sent": sent.counts, "run": run}, folder / "run.pt")


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_copies_are_added_up_once_a_step(world: int, backbone: Backbone, tmp_path: Path) -> None:
    """Over copies at the last micro-batch alone, over pieces at each; the run is that of one process."""
    alone = fit(backbone, "full", tmp_path, samples=4, accumulate_grad_batches=2)
    together(world, accumulates, backbone, tmp_path, world)
    found = saved(tmp_path / "run.pt")
    groups = found["sent"][1][0]
    assert groups == 2 + 2 + 1  # vision blocks that are read, decoder blocks, the rest
    assert [over_copies for over_copies, _ in found["sent"]] == [0, groups] * STEPS
    assert {over_pieces for _, over_pieces in found["sent"]} == {groups if world == 4 else 0}
    assert found["run"]["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert found["run"]["norms"] == pytest.approx(alone["norms"], rel=1e-4)


# --- in which precision it computes -----------------------------------------------------------------------------------


class Seen(L.Callback):
    """Types of a decoder block's weights where it runs."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        block = next(m for name, m in pl_module.named_modules() if name.endswith("language_model.layers.1"))
        self.dtypes: set[torch.dtype] = set()
        block.mlp.register_forward_pre_hook(lambda mlp, _: self.dtypes.update(p.dtype for p in mlp.parameters()))


def mixed(backbone: Backbone, table: str, folder: Path) -> None:
    """Losses of each strategy under ``bf16-mixed``."""
    found: dict[str, Any] = {}
    for name in ("ddp", "fsdp2"):
        seen = Seen()
        run = fit(backbone, table, folder, name, world=2, precision="bf16-mixed", callbacks=[seen])
        weights = {str(p) for p in seen.dtypes}
        found[name] = {"losses": run["losses"], "norms": run["norms"], "computes": sorted(weights)}
    if distributed.get_rank() == 0:
        torch.save(found, folder / "found.pt")


@pytest.mark.parametrize("table", ["full", pytest.param("mixed", marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", [COMPOSED, pytest.param("mllama", marks=pytest.mark.slow)])
def test_bf16_mixed_is_that_of_ddp(family: str, table: str, tmp_path: Path) -> None:
    """Blocks are gathered in bfloat16, and losses are as near to DDP's as DDP's are to those of float32; in the table
    ``mixed`` what is frozen is kept in bfloat16."""
    files(tmp_path)
    backbone = backbone_of(family, tmp_path)
    exact = fit(backbone, table, tmp_path)
    if table == "mixed":
        backbone.dtype = "bfloat16"
    together(2, mixed, backbone, table, tmp_path)
    found = saved(tmp_path / "found.pt")
    assert found["fsdp2"]["computes"] == ["torch.bfloat16"]
    assert found["ddp"]["computes"] == [*(["torch.bfloat16"] if table == "mixed" else []), "torch.float32"]
    for what, near in (("losses", 0.01), ("norms", 0.05)):
        assert found["ddp"][what] == pytest.approx(exact[what], rel=near), what
        assert found["ddp"][what] != exact[what]
        assert found["fsdp2"][what] == pytest.approx(found["ddp"][what], rel=near), what


# --- what is put together ---------------------------------------------------------------------------------------------


def held(change: Callable[[], Any]) -> int:
    """Bytes that ``change`` takes at most, over what the process holds before."""

    def line(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(each.split()[1]) for each in lines if each.startswith(f"{name}:")) * 1024

    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free already would be taken first
    before = line("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    kept = change()
    peak = line("VmHWM")
    del kept
    return peak - before


def gathers(backbone: Backbone, folder: Path) -> None:
    tuned = SafetyFineTuning(backbone, Components(Tuning(), Tuning(), FULL), warmup_ratio=0.0)
    strategy = FSDP2(sharded_checkpoints=False, cluster_environment=LightningEnvironment())
    made = trainer(folder, devices=2, strategy=strategy, max_steps=1)
    made.fit(tuned, datamodule=data(folder, batch_size=1))
    size = sum(p.numel() for p in tuned.parameters() if p.requires_grad) * 4
    figures = {"size": size, "model": sum(p.numel() for p in tuned.parameters()) * 4}
    for name, change in {
        "checkpoint": lambda: made.save_checkpoint(folder / "one.ckpt", weights_only=False),
        "weights": lambda: whole_state(tuned, made.is_global_zero),
    }.items():
        figures[name] = held(change)
    found: list[Any] = [None, None]
    distributed.all_gather_object(found, figures)
    if distributed.get_rank() == 0:
        torch.save(found, folder / "found.pt")


def ties(backbone: Backbone, folder: Path) -> None:
    tuned = SafetyFineTuning(backbone, Components(Tuning(), Tuning(), FULL), warmup_ratio=0.0)
    strategy = FSDP2(cluster_environment=LightningEnvironment())
    trainer(folder, devices=2, strategy=strategy, max_steps=0).fit(tuned, datamodule=data(folder, batch_size=1))
    first = distributed.get_rank() == 0
    state, after = whole_state(tuned, first), whole(tuned.model.get_output_embeddings().weight)
    assert bool(state) == first
    if first:
        tied = [state[f"model.{name}"] for name in ("lm_head.weight", "model.language_model.embed_tokens.weight")]
        assert tied[0] is tied[1] and torch.equal(tied[0], after)


def test_tied_words_are_put_together_once_by_all(tmp_path: Path) -> None:
    files(tmp_path)
    language = language_model(save_tokenizer(tmp_path / "tokenizer"), tie_word_embeddings=True)
    backbone = Seeded("clip", language, vision_weights=VISION["clip"], attention="sdpa")
    together(2, ties, backbone, tmp_path, limit=60)


@pytest.mark.slow
def test_only_the_first_process_ever_holds_what_was_trained(tmp_path: Path) -> None:
    files(tmp_path)
    wide = dict(hidden_size=256, intermediate_size=768, num_hidden_layers=16)
    language = language_model(save_tokenizer(tmp_path / "tokenizer"), **wide)
    backbone = Seeded("clip", language, vision_weights=VISION["clip"], attention="sdpa")
    together(2, gathers, backbone, tmp_path)
    first, other = saved(tmp_path / "found.pt")
    assert first["size"] > 50e6
    assert first["checkpoint"] > 2.5 * first["size"] and first["weights"] > 0.9 * first["model"]  # it can be seen
    assert other["weights"] < 0.3 * other["size"] and other["checkpoint"] < 0.5 * other["size"]
