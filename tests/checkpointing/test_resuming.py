"""A run is gone on with only where config and data are the same, and ends as if nothing had happened."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from fitting import changed, tensors

from tests.checkpointing.conftest import Fit
from vlsafe.__main__ import main
from vlsafe.errors import ConfigError
from vlsafe.resuming import RECORD, RunIdentity, checkpoint_to_resume


def test_the_newest_are_kept_and_hold_what_a_run_is(fit: Fit, folder: Path) -> None:
    fit()
    kept = folder / "checkpoints"
    assert sorted(path.name for path in kept.iterdir()) == ["step=5.ckpt", "step=6.ckpt"]
    state = torch.load(kept / "step=6.ckpt", weights_only=True)
    assert {"state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "vlsafe", RECORD} <= set(state)
    assert set(state[RECORD]) == {"config", "config_sha256", "samples_at_a_time", "data", "vlsafe", "git"}
    assert state["vlsafe"]["seen"] == {n: {"samples": 6, "supervised_tokens": s["supervised_tokens"]}
                                       for n, s in state["vlsafe"]["seen"].items()}  # fmt: skip
    assert set(state[RECORD]["data"]) == {
        "data: plan of the mixture", "data: records of part text", "data: records of part pictures",
    }  # fmt: skip


def test_a_run_goes_on_from_the_one_before_a_damaged_one(
    fit: Fit, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, whole = fit()
    newest = checkpoint_to_resume(folder / "checkpoints")
    assert newest is not None and newest.name == "step=6.ckpt"
    newest.write_bytes(newest.read_bytes()[:-1000])
    (folder / "checkpoints" / ".step=7.ckpt.partial").write_bytes(b"half")
    assert checkpoint_to_resume(folder / "checkpoints") == newest
    _, resumed = fit(ckpt_path=newest, newest=True)
    assert "going on from" in caplog.text and "step=5.ckpt" in caplog.text
    assert changed(tensors(whole), tensors(resumed)) == set()
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step=5.ckpt", "step=6.ckpt"]


def test_another_config_or_other_data_is_refused_unless_forced(
    fit: Fit, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit()
    path = folder / "checkpoints" / "step=5.ckpt"
    rows = json.loads((folder / "text.json").read_text())
    rows[3]["output"] = "other"
    (folder / "text.json").write_text(json.dumps(rows))
    with pytest.raises(ConfigError) as caught:
        fit(ckpt_path=path, config={"seed": 2, "run_dir": "elsewhere", "model.warmup_ratio": 0.1}, batch_size=4)
    words = str(caught.value)
    for expected in (
        "seed was 1, is now 2", "model.warmup_ratio was not there, is now 0.1", "data: records of part text was",
        "data.batch_size x processes was 2, is now 4", "--resume_changed=true",
    ):  # fmt: skip
        assert expected in words
    assert "run_dir was" not in words and "part pictures" not in words
    with caplog.at_level(logging.WARNING):
        fit(ckpt_path=path, config={"seed": 2}, changed=True)
    assert "going on although seed was 1, is now 2" in caplog.text


def test_keys_of_the_place_are_no_part_of_a_run() -> None:
    record = RunIdentity(
        {"trainer.devices": 8, "trainer.max_steps": 3, "evaluation.judge": "x", "trainer.strategy": "a"}
    )
    assert record.config == {"trainer.max_steps": "3"}


def test_resume_auto_through_the_door(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["fit", "--config", str(config), "--resume=auto", "--checkpoints.every=1", "--evaluation.benchmarks=[]"]
    assert main([*argv, "--trainer.max_steps=2"]) == 0
    run = tmp_path / "run"
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"step=1.ckpt", "step=2.ckpt", "last.ckpt"}
    (run / "checkpoints" / "last.ckpt").write_bytes(b"cut")
    capsys.readouterr()
    assert main([*argv, "--trainer.max_steps=3"]) == 2
    assert "trainer.max_steps was 2, is now 3" in capsys.readouterr().err
    assert main([*argv, "--trainer.max_steps=3", "--resume_changed=true"]) == 0
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3
    assert main([*argv, "--ckpt_path", str(run / "checkpoints" / "last.ckpt")]) == 2
    assert "leave --ckpt_path out" in capsys.readouterr().err
