"""One of two processes is killed; the run that goes on ends with the weights of one that was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.tiny_run import tiny_run
from tests.torchrun import begun, done, kill_one
from vlsafe.checkpointing import loaded


def prepared(folder: Path, strategy: str) -> Path:
    """A config of twelve steps for two processes."""
    folder.mkdir()
    path = tiny_run(folder)
    told: dict[str, Any] = yaml.safe_load(path.read_text())
    told["trainer"] |= {"devices": 2, "strategy": strategy, "max_epochs": 6, "limit_val_batches": 0}
    told["checkpoints"] = {"every": 1, "keep": 3}
    told["evaluation"]["benchmarks"] = []
    path.write_text(yaml.safe_dump(told))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_run_with_a_killed_rank_goes_on_to_the_same_weights(tmp_path: Path, strategy: str) -> None:
    config = prepared(tmp_path / "files", strategy)
    argv = ["fit", "--config", str(config), "--resume=auto", "--run_dir"]
    status, words = done(begun(2, [*argv, str(tmp_path / "whole")], tmp_path))
    assert status == 0, words

    kept = tmp_path / "killed" / "checkpoints"
    running = begun(2, [*argv, str(tmp_path / "killed")], tmp_path)
    kill_one(running, lambda: (kept / "step=3.ckpt").exists())
    assert done(running)[0] != 0
    assert not (kept / "last.ckpt").exists()
    status, words = done(begun(2, [*argv, str(tmp_path / "killed")], tmp_path))
    assert status == 0 and "going on from" in words, words

    whole, resumed = (loaded(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "killed"))
    assert whole["global_step"] == resumed["global_step"] == 12
    assert whole["state_dict"].keys() == resumed["state_dict"].keys()
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(tensor, resumed["state_dict"][name]), name
    assert whole["vlsafe"] == resumed["vlsafe"]  # samples and tokens seen of each source
