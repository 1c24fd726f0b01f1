"""Whatever a run is at when it is told to stop: its status says so, and the same command goes on from there."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.stopped import Told, imports
from tests.tiny_run import tiny_run, vlguard_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run whose evaluations take a second or two, and whose steps are slow."""
    folder = tmp_path_factory.mktemp("run")
    path = tiny_run(folder)
    content = yaml.safe_load(path.read_text())
    asked = content["evaluation"]["benchmarks"][0]["init_args"]
    asked["path"] = str(vlguard_folder(folder / "asked", rows=60))
    content["evaluation"] |= {"max_new_tokens": 24, "batch_size": 4}
    content["trainer"]["callbacks"] = [{"class_path": "tests.stopped.Slow"}]
    content["checkpoints"] = {"every": 1, "keep": 2}
    path.write_text(yaml.safe_dump(content))
    return path


def fit(config: Path, run: Path, *more: str) -> list[str]:
    return ["fit", "--config", str(config), "--run_dir", str(run), "--resume=auto", *more]


@pytest.fixture(scope="module")
def weights(config: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Of the run that nobody stops."""
    folder = tmp_path_factory.mktemp("whole")
    running = Told(fit(config, folder / "run"), folder)
    assert running.status() == 0, running.said
    return load_file(folder / "run" / "model" / "model.safetensors")


def same(run: Path, weights: dict[str, torch.Tensor]) -> bool:
    found = load_file(run / "model" / "model.safetensors")
    return found.keys() == weights.keys() and all(torch.equal(found[name], weights[name]) for name in found)


def test_a_run_stopped_in_every_phase_ends_with_the_same_weights(
    config: Path, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    kept, before, after = run / "checkpoints", run / "evaluation" / "before", run / "evaluation" / "after"

    def stopped(number: int, shown: object) -> str:
        running = Told(fit(config, run), tmp_path).once(shown).tell(number)  # type: ignore[arg-type]
        assert running.status() == (130 if number == signal.SIGINT else 143), running.said
        assert "Traceback" not in running.said
        return running.said

    stopped(signal.SIGUSR1, imports)
    assert not run.exists()
    stopped(signal.SIGTERM, lambda _: (run / "environment.json").exists())  # weights load next
    assert not before.exists()
    stopped(signal.SIGUSR1, lambda _: (before / "responses.jsonl").exists())
    answers = (before / "responses.jsonl").read_text().splitlines()
    assert answers and not (before / "metrics.json").exists()
    said = stopped(signal.SIGTERM, lambda _: (kept / "step=1.ckpt").exists())
    assert "answers:" in said and "are there" in said  # answers that were kept are not asked again
    assert (before / "responses.jsonl").read_text().splitlines()[: len(answers)] == answers
    assert "stopped at step" in said and (kept / "interrupted.ckpt").exists()
    assert "evaluate before" not in stopped(signal.SIGINT, lambda running: "Restored all states" in running.said)
    stopped(signal.SIGTERM, lambda _: (kept / "last.ckpt").exists())
    assert not (after / "metrics.json").exists()
    stopped(signal.SIGUSR1, lambda _: (after / "responses.jsonl").exists())
    assert not (run / "report.json").exists()
    running = Told(fit(config, run), tmp_path)
    assert running.status() == 0, running.said
    assert same(run, weights) and (run / "report.json").exists() and (run / "metrics.csv").exists()


def test_a_signal_to_the_whole_job_saves_the_step_although_data_workers_get_it_too(
    config: Path, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    kept = run / "checkpoints"
    argv = fit(config, run, "--data.num_workers=2", "--evaluation.benchmarks=[]")
    for number, name in ((signal.SIGTERM, "step=1.ckpt"), (signal.SIGUSR1, "step=3.ckpt")):
        running = Told(argv, tmp_path).once(lambda _, path=kept / name: path.exists()).tell(number, group=True)
        assert running.status() == 143, running.said
        assert "stopped at step" in running.said and (kept / "interrupted.ckpt").exists(), running.said
    assert Told(argv, tmp_path).status() == 0 and same(run, weights)


def test_under_slurm_nobody_but_the_job_script_requeues(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tasks as srun starts them. Lightning's handlers would save a checkpoint of their own, call scontrol, and go
    on."""
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/called\n')
    scontrol.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = tmp_path / "run"
    strategy = ("--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=2")

    def tasks() -> list[Told]:
        common = {
            "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
            "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "vlsafe", "SLURM_NODELIST": "127.0.0.1", "SLURM_NODEID": "0",
            "SLURM_NNODES": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        ranks = ({"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2))
        return [Told(fit(config, run, *strategy), tmp_path, common | rank) for rank in ranks]

    for shown in (
        run / "evaluation" / "before" / ".responses.jsonl.part-00000",
        run / "checkpoints" / "step=1.ckpt",
        run / "evaluation" / "after" / ".responses.jsonl.part-00000",
    ):
        both = tasks()
        both[0].once(lambda _, path=shown: path.exists())
        for each in both:
            each.tell(signal.SIGUSR1)
        assert [each.status() for each in both] == [143, 143], (shown, *(each.said[-3000:] for each in both))
    assert [each.status() for each in tasks()] == [0, 0]
    assert (run / "report.json").exists()
    assert not (tmp_path / "called").exists() and not list(run.rglob("hpc_ckpt*"))
