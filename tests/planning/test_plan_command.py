"""The verb on a config whose every part is tiny, and its table, JSON and batch file."""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import VISION, alpaca_file, language_model, llava_file, save_tokenizer

from vlsafe.__main__ import main
from vlsafe.errors import ConfigError, DataError
from vlsafe.planning.command import main as plan

ROWS = 6


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    tokenizer = save_tokenizer(folder / "tokenizer")
    backbone = {
        "vision_encoder": "clip",
        "vision_weights": VISION["clip"],
        "language_model": language_model(tokenizer),
        "attention": "sdpa",
    }
    parts = {
        "pictures": {"source": f"llava:{llava_file(folder / 'llava.json', ROWS)}", "repeat": 1},
        "text": {"source": f"alpaca:{alpaca_file(folder / 'alpaca.json', ROWS)}", "repeat": 1},
    }
    asked = {"class_path": "vlsafe.evaluation.benchmarks.xstest.XSTest", "init_args": {"path": "not read"}}
    content = {
        "run_dir": str(folder / "run"),
        "model": {
            "class_path": "vlsafe.SafetyFineTuning",
            "init_args": {
                "backbone": {"class_path": "vlsafe.ComposedVLLM", "init_args": backbone},
                "components": {
                    "projector": {"train": "full", "learning_rate": 1e-3},
                    "language": {"train": "lora", "learning_rate": 1e-3, "rank": 2},
                },
            },
        },
        "data": {"class_path": "vlsafe.ConversationData", "init_args": {"parts": parts, "batch_size": 2}},
        "trainer": {"accelerator": "gpu", "devices": 1, "precision": "bf16-mixed", "accumulate_grad_batches": 4}
        | {"max_epochs": 2},
        "evaluation": {"benchmarks": [asked], "batch_size": 64, "max_new_tokens": 100},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def on_two(config: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The plan for two GPUs of one GiB as JSON, and its batch file."""
    batch = tmp_path_factory.mktemp("slurm") / "run.sbatch"
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: printed.append(" ".join(map(str, words))))
        options = ["--gpus", "2", "--memory", "1", "--tflops", "1", "--mfu", "0.5", "--json", "--slurm", str(batch)]
        assert plan(["--config", str(config), *options]) == 0
    return json.loads(printed[0]), batch.read_text()


def test_memory_adds_up_and_sharding_shares(on_two: tuple[dict[str, Any], str]) -> None:
    rows = {(row["strategy"], row["checkpointing"]): row for row in on_two[0]["memory"]}
    assert list(rows) == [(s, c) for s in ("ddp", "fsdp2") for c in ("off", "full")]
    ddp, fsdp = rows["ddp", "off"], rows["fsdp2", "off"]
    for row in rows.values():
        held = sum(row[part] for part in ("weights", "gradients", "optimizer", "gathered"))
        assert row["total"] == held + max(row["activations"] + row["work"], row["answers"])
    width, layers, keys_and_values = 16, 2, 2 * 2  # bytes of bfloat16, twice
    tokens = 64 * (on_two[0]["lengths"]["longest_tokens"] + 100)
    assert rows["ddp", "off"]["answers"] > tokens * layers * width * keys_and_values
    for part in ("weights", "gradients", "optimizer"):
        assert fsdp[part] == math.ceil(ddp[part] / 2)
    assert ddp["gathered"] == ddp["gradients"]  # DDP's buckets
    assert ddp["optimizer"] == 2 * ddp["gradients"] == 8 * on_two[0]["trainable"]
    assert rows["ddp", "full"]["activations"] < ddp["activations"]
    assert on_two[0]["checkpointing_slower"] > 1


def test_the_least_sharding_is_chosen(on_two: tuple[dict[str, Any], str]) -> None:
    assert (on_two[0]["chosen"]["strategy"], on_two[0]["chosen"]["checkpointing"]) == ("ddp", "off")
    assert on_two[0]["why"].startswith("ddp: it needs")


def test_steps_keep_the_configs_global_batch(on_two: tuple[dict[str, Any], str]) -> None:
    step = on_two[0]["step"]
    assert step["accumulate"] == 2  # 8 samples of one step = 2 rows x 2 GPUs x 2
    assert step["steps_per_epoch"] == math.ceil(2 * ROWS / 4 / 2)
    assert step["steps"] == 2 * step["steps_per_epoch"]
    assert step["seconds"] == pytest.approx(step["flops"] / 2 / 0.5e12)
    assert step["hours"] == pytest.approx(step["steps"] * step["seconds"] / 3600)


def test_lengths_are_those_of_the_data(on_two: tuple[dict[str, Any], str]) -> None:
    lengths = on_two[0]["lengths"]
    assert lengths["known"] == f"measured on {2 * ROWS} of {2 * ROWS} samples"
    assert lengths["longest_tokens"] >= lengths["mean_tokens"] > 0


def test_the_batch_file_runs_the_plan(on_two: tuple[dict[str, Any], str], config: Path) -> None:
    batch = on_two[1]
    assert batch.startswith("#!/bin/bash\n")
    for line in ("#SBATCH --nodes=1", "#SBATCH --ntasks-per-node=2", "#SBATCH --gpus-per-node=2"):
        assert f"{line}\n" in batch
    assert "#SBATCH --cpus-per-task=4\n" in batch and "#SBATCH --signal=SIGUSR1@120\n" in batch
    assert subprocess.run(["bash", "-n"], input=batch, text=True, check=True).returncode == 0


@pytest.mark.parametrize(("status", "requeued"), [(0, False), (1, False), (130, False), (143, True)])
def test_the_batch_file_requeues_a_run_that_was_told_to_stop(
    on_two: tuple[dict[str, Any], str], config: Path, tmp_path: Path, status: int, requeued: bool
) -> None:
    """Executed, with programs of this test in the place of SLURM's."""
    for name, code in (("srun", status), ("scontrol", 0)):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $@" >> {tmp_path}/called\nexit {code}\n')
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "4711", "SLURM_CPUS_PER_TASK": "4"}
    done = subprocess.run(["bash", "-c", on_two[1]], env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    srun, *more = (tmp_path / "called").read_text().splitlines()
    assert more == ["scontrol requeue 4711"] * requeued
    words = srun.split()
    where = words.index("python")
    assert words[:where] == ["srun", "--kill-on-bad-exit=1", "--cpus-per-task=4"]
    assert words[where : where + 6] == ["python", "-m", "vlsafe", "fit", "--config", str(config)]
    assert {"--trainer.devices=2", "--trainer.accumulate_grad_batches=2", "--trainer.strategy=ddp"} <= set(words)
    assert words[-1] == "--resume=auto"


def test_a_table_without_data_says_what_was_given(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = "--data.init_args.parts={gone: {source: 'alpaca:gone.json', repeat: 1}}"
    argv = ["plan", "--config", str(config), missing]
    with pytest.raises(DataError, match=r"--tokens MEAN --samples NUMBER"):
        plan(argv[1:])
    with pytest.raises(ConfigError, match="--samples"):
        plan([*argv[1:], "--tokens", "50"])
    assert main([*argv, "--tokens", "50", "--samples", "80"]) == 0
    out = capsys.readouterr().out
    assert "samples: 50 tokens on average, 50 at most, as given" in out
    assert "10 steps" in out
    assert "single" in out


def test_nothing_fits(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--config", str(config), "--memory", "0.0001", "--slurm", str(tmp_path / "never")]
    with pytest.raises(ConfigError, match="no batch file is written: nothing fits"):
        plan(argv)
    assert "-> nothing fits: single" in capsys.readouterr().out
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--gpus", "12"], "--gpus 12 is no multiple of --gpus-per-node 8"),
        (["--mfu", "45"], "--mfu is 45, must be above 0 and at most 1"),
        (["--memory", "0"], "--memory is 0, must be above 0"),
    ],
)
def test_an_impossible_machine_is_refused(config: Path, options: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plan(["--config", str(config), *options])


@pytest.mark.parametrize("precision", ["bf16-true", "16-mixed"])
def test_a_precision_that_fit_refuses_is_not_planned(config: Path, precision: str) -> None:
    with pytest.raises(ConfigError, match=f"trainer.precision {precision} .*; set trainer.precision: bf16-mixed"):
        plan(["--config", str(config), f"--trainer.precision={precision}"])


def test_columns_have_their_names_where_no_terminal_is(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    plan(["--config", str(config)])
    out = capsys.readouterr().out
    assert "checkpointing" in out and "activations" in out and "…" not in out
