"""What is replaced to train here is as little as can be, and each of it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vlsafe.errors import ConfigError
from vlsafe.rehearsal import place
from vlsafe.rehearsal.draft import Draft


def settled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpus: int = 0, **trainer: Any) -> tuple[Draft, int]:
    monkeypatch.setattr(place, "gpus_here", lambda: gpus)
    backbone = {"class_path": "vlsafe.PretrainedVLLM", "init_args": {"attention": "flash_attention_2"}}
    components = {"vision": {"train": "frozen"}, "language": {"train": "qlora"}}
    draft = Draft({
        "run_dir": "runs/mine",
        "model": {"init_args": {"backbone": backbone, "components": components, "compile": True}},
        "data": {"init_args": {"batch_size": 16, "num_workers": 8}},
        "checkpoints": {"every": 50},
        "trainer": {"accelerator": "gpu", "devices": 1, "num_nodes": 1, "precision": "bf16-mixed", **trainer},
    })  # fmt: skip
    return draft, place.settle(draft, tmp_path)


def told(draft: Draft) -> dict[str, str]:
    return {change.what: change.by for change in draft.changes}


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    draft, processes = settled(monkeypatch, tmp_path, devices=4, num_nodes=2, strategy="hsdp", gradient_clip_val=1.0)
    assert processes == draft.get("trainer.devices") == 2 and draft.get("trainer.accelerator") == "cpu"
    assert draft.get("trainer.strategy.init_args.replicas") == 2 and draft.get("trainer.gradient_clip_val") == 1.0
    assert told(draft) | {
        "8 GPUs on 2 nodes": "2 CPU processes over gloo",
        "model.backbone.attention flash_attention_2": "auto",
        "model.compile true": "false",
        "data.batch_size 16": "4",
    } == told(draft)
    assert draft.get("trainer.precision") == "bf16-mixed"
    assert {"NCCL", "torch.compile", "GPU memory and speed (see `vlsafe plan`)"} <= set(draft.not_rehearsed)


def test_with_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    draft, processes = settled(monkeypatch, tmp_path, gpus=1, devices=8, strategy="fsdp2")
    assert processes == 1 and draft.get("trainer.accelerator") == "gpu" and draft.get("trainer.strategy") == "fsdp2"
    assert told(draft)["8 GPUs"] == "1 GPU" and not draft.not_rehearsed
    assert draft.get("trainer.precision") == "bf16-mixed" and draft.get("model.init_args.compile") is True


def test_what_runs_on_a_cpu_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    draft, processes = settled(monkeypatch, tmp_path, accelerator="cpu", precision="bf16-mixed", devices="auto")
    assert processes == 1 and draft.get("trainer.precision") == "bf16-mixed"
    assert not [what for what in told(draft) if "GPU" in what or "device" in what]


@pytest.mark.parametrize("precision", ["16-mixed", "16-true", "bf16-true"])
def test_a_precision_is_never_replaced(precision: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`fit` refuses these; by another in their place the rehearsal would pass."""
    assert settled(monkeypatch, tmp_path, precision=precision)[0].get("trainer.precision") == precision


@pytest.mark.parametrize("strategy", ["fsdp", "fsdp2", "hsdp", "ddp"])
def test_4_bits_are_left_where_they_are_refused(strategy: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    draft, _ = settled(monkeypatch, tmp_path, devices=4, strategy=strategy)
    trains = draft.get("model.init_args.components.language.train")
    assert trains == ("lora" if strategy == "ddp" else "qlora")
    assert ("weights in 4 bits (qlora)" in draft.not_rehearsed) == (strategy == "ddp")


def test_flash_in_float32_is_refused_without_a_gpu_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="would get float32, and this kernel takes bfloat16"):
        settled(monkeypatch, tmp_path, precision="32-true")


@pytest.mark.parametrize(
    ("replicas", "nodes", "here"), [(1, 1, 1), (2, 1, 2), (4, 1, 2), ("nodes", 4, 2), ("nodes", 1, "nodes")]
)
def test_replicas_are_those_of_the_devices_asked_for(
    replicas: Any, nodes: int, here: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    strategy = {"class_path": "vlsafe.strategies.fsdp2.FSDP2", "init_args": {"replicas": replicas}}
    draft, processes = settled(monkeypatch, tmp_path, devices=8, num_nodes=nodes, strategy=strategy)
    assert processes == 2 and draft.get("trainer.strategy.init_args.replicas") == here


def test_replicas_that_do_not_divide_the_devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    strategy = {"class_path": "vlsafe.strategies.fsdp2.FSDP2", "init_args": {"replicas": 3}}
    with pytest.raises(ConfigError, match="3 replicas do not divide 8 processes"):
        settled(monkeypatch, tmp_path, devices=8, strategy=strategy)


def test_nothing_is_left_that_writes_or_reaches_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wandb, comet = (f"lightning.pytorch.loggers.{name}Logger" for name in ("Wandb", "Comet"))
    loggers = [
        {"class_path": wandb, "init_args": {"save_dir": "runs/mine", "offline": False}},
        {"class_path": comet},
    ]
    saved = {"class_path": "x.Saved", "init_args": {"dirpath": "runs/mine/kept", "every_n_train_steps": 500}}
    draft, _ = settled(monkeypatch, tmp_path, logger=loggers, callbacks=[saved])
    run = str(tmp_path / "run")
    assert draft.content["run_dir"] == run
    assert draft.get("trainer.logger") == [{"class_path": wandb, "init_args": {"save_dir": run, "offline": True}}]
    assert "CometLogger, which needs its server" in draft.not_rehearsed
    (callback,) = draft.get("trainer.callbacks")
    assert callback["init_args"] == {"dirpath": f"{run}/kept", "every_n_train_steps": 1}
