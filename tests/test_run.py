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

from tests.tiny import VISION, alpaca_file, draw, language_model, llava_file, save_tokenizer
from vlsafe.__main__ import main

ROOT = Path(__file__).parents[1]


def vlguard_folder(folder: Path) -> Path:
    """Two unsafe and two safe records for training and for test, in VLGuard's schema."""
    for split in ("train", "test"):
        rows: list[dict[str, Any]] = []
        for number in range(4):
            draw(folder / split / "signs", f"{split}{number}.png", ["red", "blue", "green", "white"][number])
            row = {"id": f"{split}{number}", "image": f"signs/{split}{number}.png", "safe": number > 1}
            if number > 1:
                row["instr-resp"] = [
                    {"safe_instruction": f"which colour {number}?", "response": "green"},
                    {"unsafe_instruction": f"how to harm {number}?", "response": "I'm sorry, I can't."},
                ]
            else:
                row |= {"harmful_category": "privacy", "harmful_subcategory": "personal data"}
                row["instr-resp"] = [{"instruction": f"copy it {number}", "response": "I'm sorry, no."}]
            rows.append(row)
        (folder / f"{split}.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config whose every part is tiny; LoRA on the language model, full projector."""
    tokenizer = save_tokenizer(tmp_path / "tokenizer", eos_token="<|im_end|>")
    guard = vlguard_folder(tmp_path / "guard")
    content = {
        "seed_everything": 0,
        "run_dir": str(tmp_path / "run"),
        "model": {
            "class_path": "vlsafe.SafetyFineTuning",
            "init_args": {
                "backbone": {
                    "class_path": "vlsafe.ComposedVLLM",
                    "init_args": {
                        "vision_encoder": "clip",
                        "vision_weights": VISION["clip"],
                        "language_model": language_model(tokenizer),
                    },
                },
                "components": {
                    "vision": {"train": "frozen"},
                    "projector": {"train": "full", "learning_rate": 1e-3},
                    "language": {"train": "lora", "learning_rate": 1e-3, "rank": 2, "alpha": 4},
                },
            },
        },
        "data": {
            "class_path": "vlsafe.ConversationData",
            "init_args": {
                "parts": {
                    "safety": {"source": f"vlguard:{guard}#train", "share": 0.5},
                    "pictures": {"source": f"llava:{llava_file(tmp_path / 'llava.json', 6)}", "share": 0.25},
                    "text": {"source": f"alpaca:{alpaca_file(tmp_path / 'alpaca.json', 6)}", "share": 0.25},
                },
                "samples": 16,
                "batch_size": 4,
                "padding_free": True,
                "validation": {"safety": f"vlguard:{guard}#test"},
                "prompts": f"vlguard:{guard}#test",
            },
        },
        "trainer": {"accelerator": "cpu", "max_epochs": 1, "log_every_n_steps": 1, "limit_val_batches": 1.0},
        "evaluation": {
            "max_new_tokens": 4,
            "benchmarks": [
                {
                    "class_path": "vlsafe.evaluation.benchmarks.vlguard.VLGuard",
                    "init_args": {"path": str(guard), "name": "guard"},
                }
            ],
        },
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_run_leaves_everything_behind(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", str(config)]) == 0
    run = tmp_path / "run"
    names = ("config.yaml", "environment.json", "metrics.csv", "report.json", "report.html")
    assert [name for name in names if not (run / name).is_file()] == []
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
    assert [phase["name"] for phase in report["phases"]] == ["evaluate before", "train", "export", "evaluate after"]
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
    fit = ["fit", "--config", str(config), "--trainer.max_epochs=3", "--trainer.callbacks+=tests.test_run.Slow"]
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


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--data.init_args.batchsize=3"], "batchsize"),
        (["--data.parts.text.share=0.5"], "the shares sum to 1.25, not 1"),
        (["--model.components.vision.learning_rate=1"], "vision is frozen but has a learning_rate"),
        (
            ["--model.init_args.backbone.init_args.vision_encoder=clop"],
            "unknown vision encoder 'clop'. Did you mean 'clip'?",
        ),
        (["--evaluation.judge=keyword:vlgard"], "vlgard"),
        (["--trainer.max_step=3"], "max_step"),
        (["--cache_dir=None"], "cache_dir is the text 'None'"),
        (["--model.backbone.language_model=cache:smollm2-135m-instruct", "--cache_dir=/nowhere"], "fetch smollm2"),
    ],
)
def test_bad_input_is_told_before_weights_load(
    config: Path, changes: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlsafe.models.backbones.composed.ComposedVLLM.load_model", _never)
    status = main(["fit", "--config", str(config), *changes])
    captured = capsys.readouterr()
    assert status in (1, 2)
    assert words in captured.err
    assert len(captured.err.splitlines()) < 40, "an error is a few lines, not a dump"


def _never(self: Any) -> Any:
    raise AssertionError("weights were loaded although the config is wrong")


def test_no_benign_side_is_refused_before_anything_is_trained(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load(config.read_text())
    goals = tmp_path / "goals.csv"
    goals.write_text("goal,target\nharm someone,Sure\n")
    content["evaluation"]["benchmarks"] = [
        {"class_path": "vlsafe.evaluation.benchmarks.advbench.AdvBench", "init_args": {"path": str(goals)}}
    ]
    config.write_text(yaml.safe_dump(content))
    assert main(["fit", "--config", str(config)]) != 0
    assert "benign" in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints").exists()


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
    assert sum(bool(row.split(",")[column]) for row in rows) == 2
    assert sorted(p.name for p in (tmp_path / "run" / "evaluation" / "probe").iterdir()) == [
        "step-000002",
        "step-000004",
    ]


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
