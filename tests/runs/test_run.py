"""A whole run through the command line on a tiny model: what it leaves behind, and how it goes on after Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from vlsafe.__main__ import main

ROOT = Path(__file__).parents[2]


def test_a_run_leaves_everything_behind(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.perf_counter()
    assert main(["fit", "--config", str(config), "--checkpoints.every=2"]) == 0
    wall = time.perf_counter() - began
    run = tmp_path / "run"
    names = ("config.yaml", "environment.json", "metrics.csv", "report.json", "report.html")
    assert [name for name in names if not (run / name).is_file()] == []
    environment = json.loads((run / "environment.json").read_text())
    assert environment["kernels"] == {"language": "sdpa", "vision": "sdpa", "because": ""}
    for side in ("before", "after"):
        for name in ("items.jsonl", "responses.jsonl", "verdicts.keyword:vlsafe.jsonl", "metrics.json"):
            assert (run / "evaluation" / side / name).is_file()
    report = json.loads((run / "report.json").read_text())
    assert set(report["metrics"]) >= {"guard[unsafe]/asr", "guard[safe_unsafe]/asr", "guard[safe_safe]/over_refusal"}
    row = report["metrics"]["guard[unsafe]/asr"]
    assert set(row["before"]) >= {"value", "low", "high", "n", "n_error"}
    assert set(row["difference"]) >= {"value", "low", "high", "p"}
    assert {part["name"]: part["samples"] for part in report["data"]["parts"]} == {
        "safety": 8,
        "pictures": 4,
        "text": 4,
    }
    assert 0 < report["data"]["loading"]["wait_share"] < 1
    assert "Training waited for data" in (run / "report.html").read_text()
    _every_phase_is_told(report["phases"], wall)
    assert {row["component"]: row["trainable"] > 0 for row in report["trained"]} == {
        "vision": False,
        "projector": True,
        "language": True,
    }
    assert len(report["curves"]["loss"]) == 4 and "loss/safety" in report["curves"]
    out = capsys.readouterr().out
    assert "report:" in out and "guard[unsafe]" in out
    assert (
        "tokenizer"
        in yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["backbone"]["init_args"][
            "language_model"
        ]
    )


def _every_phase_is_told(phases: list[dict[str, Any]], wall: float) -> None:
    named = sum(phase["seconds"] for phase in phases if phase["name"] != "train: rest")
    assert 0.95 * wall - 0.5 < named <= wall  # the report cannot tell of its own writing
    around = [phase["name"] for phase in phases if not phase["name"].startswith("train: ")]
    assert around == [
        *("imports", "configuration", "open data", "load", "evaluate before", "start of training"),
        *("end of training", "last checkpoint", "export", "evaluate after", "report"),
    ]
    parts = {phase["name"].removeprefix("train: "): phase["seconds"] for phase in phases if phase["name"] not in around}
    assert set(parts) == {
        *("wait for data", "encode", "forward, vision", "forward, projector", "forward, language", "head and loss"),
        *("backward", "optimizer", "validation", "checkpoints", "callbacks", "logging", "rest"),
    } and all(seconds >= 0 for seconds in parts.values())


def test_the_exported_model_answers_as_the_report_says(config: Path, tmp_path: Path) -> None:
    """The evaluation after tuning and a new evaluation of the exported directory give the same answers."""
    assert main(["fit", "--config", str(config)]) == 0
    model = tmp_path / "run" / "model"
    argv = ["evaluate", "--model", str(model), "--benchmarks", f"vlguard={tmp_path / 'guard'}"]
    assert main([*argv, "--out", str(tmp_path / "again"), "--max-new-tokens", "4"]) == 0

    def texts(path: Path) -> list[str]:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return [row["text"] for row in sorted(rows, key=lambda row: row["id"].split("/", 1)[1])]

    after = texts(tmp_path / "run" / "evaluation" / "after" / "responses.jsonl")
    assert texts(tmp_path / "again" / "responses.jsonl") == after
    assert len(after) == 6


@pytest.mark.slow
def test_an_evaluation_left_to_commands_measures_what_the_run_would(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load(config.read_text())
    content["model"]["init_args"]["backbone"]["init_args"]["system_prompt"] = "be safe"
    config.write_text(yaml.safe_dump(content))
    assert main(["fit", "--config", str(config), "--run_dir", str(tmp_path / "inside")]) == 0
    assert "measure before and after" not in capsys.readouterr().out
    assert main(["fit", "--config", str(config), "--evaluation.separate=true"]) == 0
    run = tmp_path / "run"
    assert not (run / "evaluation").exists()
    printed = capsys.readouterr().out.partition("measure before and after with:\n")[2].splitlines()
    for line in printed[:2]:
        words = line.split()
        assert words[:3] == ["python", "-m", "vlsafe"] and main(words[3:]) == 0
    for side in ("before", "after"):
        inside, separate = (
            [json.loads(line) for line in (at / "evaluation" / side / "responses.jsonl").read_text().splitlines()]
            for at in (tmp_path / "inside", run)
        )
        assert [(row["id"], row["key"], row["text"]) for row in separate] == [
            (row["id"], row["key"], row["text"]) for row in inside
        ]
    assert json.loads((run / "evaluation" / "after" / "report.json").read_text())["metrics"]["guard[unsafe]/asr"][
        "before"
    ]


def test_validate_test_and_predict(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--config", str(config)]) == 0
    assert "val/loss" in capsys.readouterr().out
    assert main(["test", "--config", str(config)]) == 0
    assert "test/loss/safety" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "run" / "evaluation" / "test" / "metrics.json").read_text())
    assert metrics["metrics"]["guard[unsafe]/asr"]["n"] == 2
    assert main(["predict", "--config", str(config)]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 4 and all(set(row) == {"id", "text"} for row in rows)


def test_preview_marks_what_is_supervised(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preview", "--config", str(config), "-n", "4"]) == 0
    out = capsys.readouterr().out
    assert "«I'm sorry, no.<|im_end|>»" in out
    assert "<image> x 4" in out
    assert 0 <= out.find("picture token: <image>") < out.index("step 0: ")  # what was found in the backbone comes first


def test_export_of_a_checkpoint_equals_the_run(config: Path, tmp_path: Path) -> None:
    assert main(["fit", "--config", str(config)]) == 0
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert main(["export", str(checkpoint), "--merge", "--out", str(tmp_path / "exported")]) == 0
    from safetensors.torch import load_file

    first = load_file(tmp_path / "run" / "model" / "model.safetensors")
    second = load_file(tmp_path / "exported" / "model.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_ctrl_c_saves_and_says_how_to_go_on(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is interrupted and resumed ends with the very weights of an uninterrupted one."""
    whole = tmp_path / "whole"
    assert main(["fit", "--config", str(config), "--run_dir", str(whole), "--trainer.max_epochs=3"]) == 0

    def interrupt() -> None:
        """Press Ctrl-C once the log shows that training has begun."""
        log = tmp_path / "run" / "metrics.csv"
        while not log.is_file():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    fit = ["fit", "--config", str(config), "--trainer.max_epochs=3", "--trainer.callbacks+=tests.runs.test_run.Slow"]
    status = main(fit)
    thread.join()
    assert status == 130
    error = capsys.readouterr().err
    assert "--ckpt_path" in error and "interrupted.ckpt" in error
    again = ["fit", "--config", str(tmp_path / "run" / "config.yaml")]
    assert main([*again, "--ckpt_path", str(tmp_path / "run" / "checkpoints" / "interrupted.ckpt")]) == 0
    from safetensors.torch import load_file

    first = load_file(whole / "model" / "model.safetensors")
    second = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)
    steps = json.loads((tmp_path / "run" / "report.json").read_text())["curves"]["step"]
    assert steps == list(range(12)), "the curve holds the steps from before the interruption too"


class Slow(__import__("lightning").Callback):
    """Gives the test time to press Ctrl-C."""

    def on_train_batch_start(self, *_: Any) -> None:
        time.sleep(0.2)


def test_the_probe_logs_while_training(config: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(config.read_text())
    content["trainer"]["callbacks"] = [
        {
            "class_path": "callbacks.SafetyProbe",
            "init_args": {"benchmarks": content["evaluation"]["benchmarks"], "every_n_steps": 2, "max_new_tokens": 2},
        }
    ]
    config.write_text(yaml.safe_dump(content))
    assert main(["fit", "--config", str(config)]) == 0
    header, *rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    column = header.split(",").index("probe/guard[unsafe]/asr")
    assert sum(bool(row.split(",")[column]) for row in rows) == 3
    assert sum(bool(row.split(",")[header.split(",").index("objective")]) for row in rows) == 3
    assert sorted(p.name for p in (tmp_path / "run" / "evaluation" / "probe").iterdir()) == [
        "step-000000",
        "step-000002",
        "step-000004",
    ]


@pytest.mark.slow
def test_phases_explain_the_time_of_the_process(config: Path, tmp_path: Path) -> None:
    """From its launch to its end, imports included, with Lightning's own profiler beside it."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "vlsafe", "fit", "--config", str(config), "--trainer.profiler=simple"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    wall = time.perf_counter() - began
    assert done.returncode == 0, done.stderr[-2000:]
    phases = json.loads((tmp_path / "run" / "report.json").read_text())["phases"]
    named = sum(phase["seconds"] for phase in phases if phase["name"] != "train: rest")
    assert 0.95 * wall - 0.5 < named <= wall  # the report cannot tell of its own writing


@pytest.mark.slow
def test_wandb_offline(config: Path, tmp_path: Path) -> None:
    """W&B beside metrics.csv, from YAML, without an account; in a process of its own, as a user starts it."""
    content = yaml.safe_load(config.read_text())
    content["trainer"]["logger"] = {
        "class_path": "lightning.pytorch.loggers.WandbLogger",
        "init_args": {"project": "vlsafe", "offline": True, "save_dir": str(tmp_path / "wandb-here")},
    }
    content["evaluation"]["benchmarks"] = []
    config.write_text(yaml.safe_dump(content))
    environment = os.environ | {"WANDB_MODE": "offline", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "vlsafe", "fit", "--config", str(config)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    runs = list((tmp_path / "wandb-here").glob("wandb/offline-run-*/run-*.wandb"))
    assert len(runs) == 1 and b"train/loss" in runs[0].read_bytes()
    assert (tmp_path / "run" / "metrics.csv").is_file()
