"""What is replaced to train here is as little as can be, and each of it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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
        "trainer": {"accelerator": "gpu", "devices": 1, "num_nodes": 1, "precision": "16-mixed", **trainer},
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
        "trainer.precision 16-mixed": "bf16-mixed",
        "model.backbone.attention flash_attention_2": "auto",
        "model.compile true": "false",
        "model.components.language.train qlora": "lora",
        "data.batch_size 16": "4",
    } == told(draft)
    assert {"NCCL", "precision 16-mixed", "torch.compile", "weights in 4 bits (qlora)"} <= set(draft.not_rehearsed)


def test_with_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    draft, processes = settled(monkeypatch, tmp_path, gpus=1, devices=8, strategy="fsdp2")
    assert processes == 1 and draft.get("trainer.accelerator") == "gpu" and draft.get("trainer.strategy") == "fsdp2"
    assert told(draft)["8 GPUs"] == "1 GPU" and not draft.not_rehearsed
    assert draft.get("trainer.precision") == "16-mixed" and draft.get("model.init_args.compile") is True


def test_what_runs_on_a_cpu_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    draft, processes = settled(monkeypatch, tmp_path, accelerator="cpu", precision="bf16-true", devices="auto")
    assert processes == 1 and draft.get("trainer.precision") == "bf16-true"
    assert not [what for what in told(draft) if "GPU" in what or "device" in what]


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
