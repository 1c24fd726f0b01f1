"""Every strategy on two processes is the run of one: losses, gradients, weights, checkpoints and exports."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fitting import Seeded, changed, files
from making import strong
from processes import saved, together
from safetensors.torch import load_file
from short_run import CLIP, TABLES, SeededCheckpoint, apart, close, fit
from tiny import VISION, language_model, save_tokenizer

from vlsafe.checkpointing import damage, loaded
from vlsafe.models.backbones.base import Backbone

FAMILIES = {"llava": None, "qwen2_5_vl": ("family_qwen", "QWEN2_5"), "idefics3": ("family_idefics", "IDEFICS3")}


def backbone_of(family: str, folder: Path) -> Backbone:
    if FAMILIES[family] is None:
        tokenizer = save_tokenizer(folder / "tokenizer")
        return Seeded("clip", language_model(tokenizer), vision_weights=VISION["clip"], attention="sdpa")
    module, name = FAMILIES[family]  # type: ignore[misc]
    checkpoint = folder / family
    checkpoint.mkdir()
    strong(getattr(importlib.import_module(module), name).write(checkpoint)).save_pretrained(checkpoint)
    return SeededCheckpoint(str(checkpoint), attention="sdpa", dtype="float32")


def two(backbone: Backbone, table: str, folder: Path, names: list[str]) -> None:
    """In each of two processes: train under every strategy, and go on from what it saved."""
    for name in names:
        path = folder / f"{name}.ckpt"
        whole = fit(backbone, table, folder, name, world=2, save=path)
        resumed = fit(backbone, table, folder, name, world=2, resume=path)
        if torch.distributed.get_rank() == 0:
            torch.save({"whole": whole, "resumed": resumed}, folder / f"{name}.pt")


CASES = [
    pytest.param(family, table, marks=[] if (family, table) == ("llava", "mixed") else pytest.mark.long)
    for family in FAMILIES
    for table in TABLES
]


@pytest.mark.parametrize(("family", "table"), CASES)
def test_two_processes_are_one(
    family: str, table: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Batches of one sample a process: at many steps one of the two sees a picture and the other none."""
    files(tmp_path)
    backbone = backbone_of(family, tmp_path)
    alone = fit(backbone, table, tmp_path, save=tmp_path / "single.ckpt")
    names = ["ddp", "fsdp2", "fsdp2, one file", *(["hsdp"] if table == "full" else [])]
    together(2, two, backbone, table, tmp_path, names)
    for name in names:
        runs = saved(tmp_path / f"{name}.pt")
        record_property("row", row(family, table, name, runs, alone))
        equal(runs["whole"], alone)
        assert changed(runs["whole"]["weights"], runs["resumed"]["weights"]) == set(), name
        path = tmp_path / f"{name}.ckpt"
        assert damage(path) is None and path.is_dir() == (name in ("fsdp2", "hsdp"))
        same_checkpoint(loaded(path), loaded(tmp_path / "single.ckpt"))
        on_one = fit(backbone, table, tmp_path, resume=path)
        assert close(on_one["weights"], alone["weights"])
        exported, expected = (load_file(tmp_path / f"{n}.export" / "model.safetensors") for n in (name, "single"))
        assert close(exported, expected)
    ddp, fsdp2 = (saved(tmp_path / f"{name}.pt")["whole"]["weights"] for name in ("ddp", "fsdp2"))
    assert close(ddp, fsdp2)


def row(family: str, table: str, name: str, runs: dict[str, Any], alone: dict[str, Any]) -> tuple[str, ...]:
    """How far two processes are from one, for the table that conftest prints."""

    def furthest(what: str) -> float:
        pairs = zip(runs["whole"][what], alone[what], strict=True)
        return max(abs(found - expected) / expected for found, expected in pairs)

    mean, worst = apart(runs["whole"]["weights"], alone["weights"])
    again = "equal" if not changed(runs["whole"]["weights"], runs["resumed"]["weights"]) else "DIFFERS"
    figures = (furthest("losses"), furthest("norms"), mean, worst)
    return (family, table, name, *(f"{figure:.0e}" for figure in figures), again)


def equal(run: dict[str, Any], alone: dict[str, Any]) -> None:
    assert run["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert run["norms"] == pytest.approx(alone["norms"], rel=1e-4)
    assert len(run["norms"]) == 5 and max(run["norms"]) > CLIP  # some were clipped
    assert run["seen"] == alone["seen"]
    assert close(run["weights"], alone["weights"])


def same_checkpoint(state: dict[str, Any], single: dict[str, Any]) -> None:
    """Names, sizes and form are those of one device; what is frozen is not there."""
    assert state["state_dict"].keys() == single["state_dict"].keys()
    assert close(state["state_dict"], single["state_dict"])
    (optimizer,), (expected,) = state["optimizer_states"], single["optimizer_states"]
    assert optimizer["state"].keys() == expected["state"].keys()
    assert optimizer["param_groups"] == expected["param_groups"]
    for index, entry in expected["state"].items():
        assert torch.allclose(optimizer["state"][index]["exp_avg_sq"], entry["exp_avg_sq"], atol=1e-5)


def saves(backbone: Backbone, name: str, folder: Path) -> None:
    fit(backbone, "mixed", folder, name, world=2, save=folder / f"{name}.ckpt", samples=4)


def goes_on(backbone: Backbone, name: str, folder: Path) -> None:
    resumed = fit(backbone, "mixed", folder, name, world=4, resume=folder / f"{name}.ckpt", samples=4)
    if torch.distributed.get_rank() == 0:
        torch.save(resumed, folder / f"{name}.pt")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "fsdp2"])
def test_four_processes_go_on_from_the_checkpoint_of_two(name: str, tmp_path: Path) -> None:
    files(tmp_path)
    backbone = backbone_of("llava", tmp_path)
    alone = fit(backbone, "mixed", tmp_path, samples=4)
    together(2, saves, backbone, name, tmp_path)
    together(4, goes_on, backbone, name, tmp_path)
    resumed = saved(tmp_path / f"{name}.pt")
    assert resumed["losses"] == pytest.approx(alone["losses"][3:], rel=1e-5)
    assert resumed["seen"] == alone["seen"]
    assert close(resumed["weights"], alone["weights"])
