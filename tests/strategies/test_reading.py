"""How often processes that go on from a checkpoint read it, and that they take the same one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from processes import together
from torch import distributed

from tests.tiny_run import tiny_run
from vlsafe import SafetyFineTuning
from vlsafe.__main__ import main

ONE_FILE = {"class_path": "vlsafe.strategies.fsdp2.FSDP2", "init_args": {"sharded_checkpoints": False}}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Two processes; its checkpoints are larger than everything else that a run reads."""
    path = tiny_run(tmp_path)
    content = yaml.safe_load(path.read_text())
    model = content["model"]["init_args"]
    model["backbone"]["init_args"]["language_model"] |= {"hidden_size": 256, "intermediate_size": 768}
    model["components"]["language"] = {"train": "full", "learning_rate": 1e-3}
    content["trainer"] |= {"devices": 2, "limit_val_batches": 0, "enable_progress_bar": False}
    content["checkpoints"] = {"every": 1, "keep": 3}
    content["evaluation"]["benchmarks"] = []
    path.write_text(yaml.safe_dump(content))
    return path


def size(checkpoint: Path) -> int:
    files = checkpoint.iterdir() if checkpoint.is_dir() else [checkpoint]
    return sum(file.stat().st_size for file in files)


def run(config: Path, strategy: str, steps: int) -> tuple[int, int]:
    """Bytes that this process has asked the system for until training began (what is mapped from a file does not
    count), and the step that it began at."""
    seen = []

    def note(tuned: SafetyFineTuning) -> None:
        counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        seen.append((int(counters["rchar"]), tuned.global_step))

    argv = ["fit", "--config", str(config), f"--trainer.strategy={strategy}", f"--trainer.max_steps={steps}"]
    before = int(Path("/proc/self/io").read_text().split()[1])
    with patch.object(SafetyFineTuning, "on_train_start", note):
        assert main([*argv, "--resume=auto", "--resume_changed=true"]) == 0
    return seen[0][0] - before, seen[0][1]


def trained_then_resumed(config: Path, strategy: str, damaged: bool) -> None:
    folder = config.parent / "run" / "checkpoints"
    assert run(config, strategy, 2)[1] == 0
    if damaged and distributed.get_rank() == 0:
        for name in ("last.ckpt", "step=2.ckpt"):
            alter(folder / name)
    distributed.barrier()
    expected = size(folder / "step=1.ckpt")
    read, step = run(config, strategy, 3)
    found: list[Any] = [None, None]
    distributed.all_gather_object(found, {"read": read, "step": step, "size": expected})
    if distributed.get_rank() == 0:
        (config.parent / "found.json").write_text(json.dumps(found))


def alter(checkpoint: Path) -> None:
    """A byte in the middle of its largest file; its size stays."""
    files = checkpoint.iterdir() if checkpoint.is_dir() else [checkpoint]
    file = max(files, key=lambda file: file.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)


@pytest.mark.parametrize(
    "strategy",
    [
        "ddp",
        pytest.param("fsdp2", marks=pytest.mark.slow),
        pytest.param(json.dumps(ONE_FILE), id="one file", marks=pytest.mark.slow),
    ],
)
def test_a_checkpoint_is_read_once_by_one_process(strategy: str, config: Path) -> None:
    """To see that it is whole; then each process maps it and takes what it needs."""
    together(2, trained_then_resumed, config, strategy, False)
    first, other = json.loads((config.parent / "found.json").read_text())
    assert first["step"] == other["step"] == 2 and first["size"] > 10_000_000
    assert first["size"] < first["read"] < 1.2 * first["size"]
    assert other["read"] < 0.2 * other["size"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_all_processes_go_on_from_the_same_checkpoint_before_damaged_ones(strategy: str, config: Path) -> None:
    together(2, trained_then_resumed, config, strategy, True)
    first, other = json.loads((config.parent / "found.json").read_text())
    assert first["step"] == other["step"] == 1


def test_where_all_are_damaged_the_run_does_not_begin_anew(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["fit", "--config", str(config), "--resume=auto", "--trainer.max_steps=1", "--trainer.devices=1"]
    assert main(argv) == 0
    for path in (config.parent / "run" / "checkpoints").iterdir():
        alter(path)
    capsys.readouterr()
    assert main(argv) == 1
    assert "is whole; remove them, or take a new run_dir" in capsys.readouterr().err
