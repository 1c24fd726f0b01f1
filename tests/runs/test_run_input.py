"""Bad input to a run is told in words, all of it at once, before any weight is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from vlsafe.__main__ import main
from vlsafe.cli import built
from vlsafe.strategies.fsdp2 import FSDP2

ADVBENCH_NOWHERE = (
    '--evaluation.benchmarks=[{"class_path": "vlsafe.evaluation.benchmarks.advbench.AdvBench", '
    '"init_args": {"path": "/nowhere.csv"}}]'
)


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
        (
            ["--trainer.profiler=PyTorchProfiler", "--trainer.profiler.sort_by_key=nonsense"],
            "trainer.profiler.init_args.sort_by_key: PyTorchProfiler refuses its arguments",
        ),
        (
            ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=x", "--trainer.callbacks.mode=up"],
            "trainer.callbacks[0].init_args.mode: EarlyStopping refuses",
        ),
        (["--trainer.callbacks+=callbacks.Throughput", "--trainer.callbacks.every_n_steps=0"], "every_n_steps is 0"),
        (["--trainer.strategy=fsdp_cpu_offload"], "trainer.strategy: what Lightning's own FSDP spreads"),
        (['--trainer.strategy={"class_path": "lightning.pytorch.strategies.FSDPStrategy"}'], "take fsdp2"),
        (
            ["--trainer.strategy=hsdp", "--model.components.language.train=qlora"],
            "trainer.strategy: 4-bit weights (train: qlora) cannot be cut over processes; take ddp",
        ),
        (
            ["--trainer.strategy=fsdp2", "--trainer.precision=16-mixed"],
            "does not support `Fabric(..., precision='16-mixed')`. Choose",
        ),
        (["--trainer.max_steps=-9"], "error: trainer: `max_steps` must be"),
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


def test_a_missing_picture_of_a_benchmark_is_told_before_weights_load(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlsafe.models.backbones.composed.ComposedVLLM.load_model", _never)
    table = tmp_path / "mine.csv"
    table.write_text("id,question,label,picture\n1,how?,unsafe,a.png\n2,what?,safe,b.png\n")
    columns = {"id": "id", "question": "question", "side": "label", "image": "picture"}
    sides = {"safe": "benign", "unsafe": "harm"}
    init = {"name": "mine", "path": str(table), "columns": columns, "sides": sides}
    told = [{"class_path": "vlsafe.evaluation.benchmarks.table.TableBenchmark", "init_args": init}]
    assert main(["fit", "--config", str(config), f"--evaluation.benchmarks={json.dumps(told)}"]) in (1, 2)
    assert "missing picture" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            [
                "--model.components.vision.learning_rate=1",
                "--data.parts.text.share=0.5",
                "--evaluation.judge=keyword:vlgard",
            ],
            ["vision is frozen but has a learning_rate", "vlgard"],
        ),
        (
            ["--data.parts.text.source=alpaca:/nowhere.json", "--evaluation.benchmarks=null", ADVBENCH_NOWHERE],
            ["/nowhere.json", "/nowhere.csv"],
        ),
    ],
    ids=["values", "files"],
)
def test_problems_of_model_data_and_evaluation_are_told_at_once(
    config: Path, changes: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", str(config), *changes]) in (1, 2)
    error = capsys.readouterr().err
    assert all(word in error for word in words), error


@pytest.mark.parametrize(("name", "replicas"), [("fsdp", 1), ("fsdp2", 1), ("hsdp", "nodes")])
def test_strategies_by_name(config: Path, name: str, replicas: object) -> None:
    strategy = built(["--config", str(config), f"--trainer.strategy={name}"]).trainer.strategy
    assert isinstance(strategy, FSDP2) and strategy.replicas == replicas


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
