"""Every strategy on two processes is the run of one: losses, gradients, weights, checkpoints and exports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from every import FAMILIES
from fitting import changed, files
from processes import saved, together
from safetensors.torch import load_file
from short_run import CLIP, COMPOSED, STEPS, apart, backbone_of, close, fit
from torch import Tensor

from vlsafe.checkpointing import damage, loaded
from vlsafe.models.backbones.base import Backbone

NAMES = {"full": ["ddp", "fsdp2", "hsdp"], "lora": ["ddp", "fsdp2"], "mixed": ["ddp", "fsdp2", "fsdp2, one file"]}
"""What trains -> the strategies that it is trained under."""
IN_CI = ("mllama", "qwen2_5_vl")
"""The others run by the command of docs/scaling.md."""
CASES = [
    pytest.param(COMPOSED, ["mixed"], id="composed-mixed"),
    pytest.param(COMPOSED, ["full", "lora"], id="composed", marks=pytest.mark.slow),
    *(
        pytest.param(name, list(NAMES), id=name, marks=pytest.mark.slow if name in IN_CI else pytest.mark.long)
        for name in (family.name for family in FAMILIES)
    ),
]


def two(backbone: Backbone, tables: list[str], folder: Path, keeps: bool) -> None:
    """In each of two processes: train under every strategy; where it ``keeps``, save, export, and go on from there."""
    for table in tables:
        for name in NAMES[table]:
            path = folder / f"{table}, {name}.ckpt"
            whole = fit(backbone, table, folder, name, world=2, save=path if keeps else None)
            resumed = fit(backbone, table, folder, name, world=2, resume=path) if keeps else None
            images: list[Any] = [None, None]
            torch.distributed.all_gather_object(images, whole["images"])
            if torch.distributed.get_rank() == 0:
                torch.save({"whole": whole, "resumed": resumed, "images": images}, path.with_suffix(".pt"))


@pytest.mark.parametrize(("family", "tables"), CASES)
def test_two_processes_are_one(
    family: str, tables: list[str], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Batches of one sample a process: the second has an image at every step, and the first never."""
    files(tmp_path)
    backbone, keeps = backbone_of(family, tmp_path), family in (COMPOSED, *IN_CI)
    alone = {table: fit(backbone, table, tmp_path, save=tmp_path / f"{table}.ckpt") for table in tables}
    together(2, two, backbone, tables, tmp_path, keeps, limit=900)
    for table in tables:
        for name in NAMES[table]:
            runs = saved(tmp_path / f"{table}, {name}.pt")
            record_property("row", row(family, table, name, runs, alone[table]))
            assert runs["images"] == [[False] * STEPS, [True] * STEPS]
            equal(runs["whole"], alone[table])
            if keeps:
                kept(runs, backbone, table, name, tmp_path, alone[table]["weights"])


def kept(
    runs: dict[str, Any], backbone: Backbone, table: str, name: str, folder: Path, weights: dict[str, Tensor]
) -> None:
    """Checkpoint and export are those of one process, and runs on two and on one go on from it."""
    assert changed(runs["whole"]["weights"], runs["resumed"]["weights"]) == set(), name
    path = folder / f"{table}, {name}.ckpt"
    assert damage(path) is None and path.is_dir() == (name in ("fsdp2", "hsdp"))
    same_checkpoint(loaded(path), loaded(folder / f"{table}.ckpt"))
    assert close(fit(backbone, table, folder, resume=path)["weights"], weights)
    exports = (folder / f"{run}.export" / "model.safetensors" for run in (f"{table}, {name}", table))
    assert close(*map(load_file, exports))


def row(family: str, table: str, name: str, runs: dict[str, Any], alone: dict[str, Any]) -> tuple[str, ...]:
    """How far two processes are from one, for the table that conftest prints."""

    def furthest(what: str) -> float:
        pairs = zip(runs["whole"][what], alone[what], strict=True)
        return max(abs(found - expected) / expected for found, expected in pairs)

    mean, worst = apart(runs["whole"]["weights"], alone["weights"])
    again = "not run"
    if runs["resumed"] is not None:
        again = "DIFFERS" if changed(runs["whole"]["weights"], runs["resumed"]["weights"]) else "equal"
    figures = (furthest("losses"), furthest("norms"), mean, worst)
    return (family, table, name, *(f"{figure:.0e}" for figure in figures), again)


def equal(run: dict[str, Any], alone: dict[str, Any]) -> None:
    assert run["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert run["norms"] == pytest.approx(alone["norms"], rel=1e-4)
    assert len(run["norms"]) == STEPS and max(run["norms"]) > CLIP  # some were clipped
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
    backbone = backbone_of(COMPOSED, tmp_path)
    alone = fit(backbone, "mixed", tmp_path, samples=4)
    together(2, saves, backbone, name, tmp_path)
    together(4, goes_on, backbone, name, tmp_path)
    resumed = saved(tmp_path / f"{name}.pt")
    assert resumed["losses"] == pytest.approx(alone["losses"][3:], rel=1e-5)
    assert resumed["seen"] == alone["seen"]
    assert close(resumed["weights"], alone["weights"])
