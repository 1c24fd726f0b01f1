"""Several processes answer and judge what one would, also where some of them were killed before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes import REFUSAL, FakeResponder, Toy

from tests.strategies.processes import free_port
from tests.tiny import composed, save_tokenizer, seeded_model
from tests.tiny_run import vlguard_folder
from tests.torchrun import ROOT, begun, done, kill_one
from vlsafe.__main__ import main
from vlsafe.answering import Answer, Decoding
from vlsafe.errors import ConfigError, VlsafeError
from vlsafe.evaluation.judges import judge_named
from vlsafe.evaluation.records import Response, read_jsonl
from vlsafe.evaluation.sharing import ALONE, Processes, joined
from vlsafe.evaluation.stages import evaluate

SAFE: dict[str, str | Answer] = {f"toy/harm/{number}": REFUSAL for number in range(3)}
FAILED = Answer("", finish="error", error="out of memory")


@dataclass(frozen=True)
class Threads(Processes):
    """Threads of this test in the place of processes."""

    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(1))

    def wait(self) -> None:
        self.barrier.wait(20)


def shared(toy: Toy, responders: list[FakeResponder], out: Path) -> list[Any]:
    """The metrics that every one of them got, or the words of its error; None where it was killed."""
    barrier = threading.Barrier(len(responders))
    drawn = toy.items()
    toy.items = lambda: drawn  # type: ignore[method-assign]  # it writes pictures: threads must not read half of one
    found: list[Any] = [None] * len(responders)

    def work(rank: int) -> None:
        processes = Threads(rank, len(responders), barrier)
        try:
            found[rank] = evaluate([toy], responders[rank], judge_named("keyword:vlsafe"), Decoding(), out, processes)
        except VlsafeError as error:
            found[rank] = str(error)
        except (KeyboardInterrupt, threading.BrokenBarrierError):
            barrier.abort()  # torchrun ends the others

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(responders))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


def told(folder: Path) -> tuple[dict[str, str], Any, list[str]]:
    """Answers by item, metrics, and the names of the files."""
    rows = read_jsonl(folder / "responses.jsonl", Response)
    assert len({row.id for row in rows}) == len(rows)
    metrics = json.loads((folder / "metrics.json").read_text())
    return {row.id: row.text for row in rows}, metrics["metrics"], sorted(file.name for file in folder.iterdir())


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path / "pictures")


def test_each_answers_its_share_and_gets_all(toy: Toy, tmp_path: Path) -> None:
    alone = shared(toy, [FakeResponder(SAFE)], tmp_path / "one")
    responders = [FakeResponder(SAFE) for _ in range(3)]
    found = shared(toy, responders, tmp_path / "three")
    assert found == alone * 3 and found[0] is not None
    assert told(tmp_path / "three") == told(tmp_path / "one")
    asked = [set(responder.asked) for responder in responders]
    assert [len(each) for each in asked] == [4, 3, 3] and len(set.union(*asked)) == 10


@pytest.mark.parametrize("world", [1, 3])
def test_what_killed_processes_answered_is_not_asked_again(toy: Toy, tmp_path: Path, world: int) -> None:
    shared(toy, [FakeResponder(SAFE)], tmp_path / "one")
    died = [FakeResponder(SAFE), FakeResponder(SAFE, dies_after=2)]
    assert shared(toy, died, tmp_path / "out") == [None, None]
    assert not (tmp_path / "out" / "metrics.json").exists()
    again = [FakeResponder(SAFE) for _ in range(world)]
    shared(toy, again, tmp_path / "out")
    assert sorted(asked for each in [*died, *again] for asked in each.asked) == sorted(told(tmp_path / "one")[0])
    assert told(tmp_path / "out") == told(tmp_path / "one")


def test_a_part_that_was_moved_before_the_kill_is_not_moved_twice(toy: Toy, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shared(toy, [FakeResponder(SAFE)], out)
    rows = (out / "responses.jsonl").read_text()
    (out / ".responses.jsonl.part-00001").write_text(rows + '{"id": "torn')
    (responder,) = again = [FakeResponder(SAFE)]
    shared(toy, again, out)
    assert (out / "responses.jsonl").read_text() == rows and responder.asked == []


def test_errors_stay_errors_and_are_tried_again(toy: Toy, tmp_path: Path) -> None:
    failing = [FakeResponder({**SAFE, "toy/benign/0": FAILED}) for _ in range(2)]
    first, second = shared(toy, failing, tmp_path / "out")
    assert isinstance(first, str) and first == second and "1 of 10 responses" in first
    again = [FakeResponder(SAFE) for _ in range(2)]
    assert shared(toy, again, tmp_path / "out") == 2 * shared(toy, [FakeResponder(SAFE)], tmp_path / "one")
    assert [each.asked for each in again] == [["toy/benign/0"], []]


# --- with torchrun --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    backbone = composed(save_tokenizer(folder / "tokenizer", eos_token="<|im_end|>"))
    seeded_model(backbone).save_pretrained(folder / "model")
    backbone.processor.save_pretrained(folder / "model")
    return folder / "model"


def command(checkpoint: Path, guard: Path, out: Path) -> list[str]:
    verb = ["evaluate", "--model", str(checkpoint), "--benchmarks", f"vlguard={guard}", "--out", str(out)]
    return [*verb, "--judge", "keyword:vlsafe", "--max-new-tokens", "24", "--batch-size", "1"]


@pytest.mark.slow
def test_processes_of_torchrun_are_one_also_after_a_kill(checkpoint: Path, tmp_path: Path) -> None:
    guard = vlguard_folder(tmp_path / "guard", rows=40)
    for world, name in ((1, "one"), (2, "two")):
        status, words = done(begun(world, command(checkpoint, guard, tmp_path / name), tmp_path))
        assert status == 0, words
        assert words.count("report: ") == 1  # told once
    assert told(tmp_path / "two") == told(tmp_path / "one")

    out = tmp_path / "killed"
    running = begun(2, command(checkpoint, guard, out), tmp_path)
    kill_one(running, lambda: len(list(out.glob(".responses.jsonl.part-*"))) == 2)
    assert done(running)[0] != 0
    assert len(list(out.glob(".responses.jsonl.part-*"))) == 2 and not (out / "metrics.json").exists()
    status, words = done(begun(3, command(checkpoint, guard, out), tmp_path))
    assert status == 0, words
    assert told(out) == told(tmp_path / "one")


def started_by_srun(rank: int, world: int, port: int, argv: list[str], folder: Path) -> subprocess.Popen[str]:
    """``vlsafe ARGV`` with the variables that srun gives to this task."""
    told = {"JOB_ID": 4711, "JOB_NAME": "evaluate", "NODELIST": "127.0.0.1", "NTASKS": world, "NNODES": 1}
    told |= {"NTASKS_PER_NODE": world, "PROCID": rank, "LOCALID": rank, "NODEID": 0}
    variables = {f"SLURM_{name}": str(value) for name, value in told.items()} | {"MASTER_PORT": str(port)}
    return subprocess.Popen(
        [sys.executable, "-m", "vlsafe", *argv],
        env=os.environ | variables | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_tasks_of_srun_share_the_items(checkpoint: Path, tmp_path: Path) -> None:
    guard = vlguard_folder(tmp_path / "guard", rows=6)
    assert main(command(checkpoint, guard, tmp_path / "one")) == 0
    port, argv = free_port(), command(checkpoint, guard, tmp_path / "two")
    tasks = [started_by_srun(rank, 2, port, argv, tmp_path) for rank in (0, 1)]
    ended = [done(task) for task in tasks]
    assert [status for status, _ in ended] == [0, 0], ended
    assert [words.count("report: ") for _, words in ended] == [1, 0]  # the first task tells it
    assert told(tmp_path / "two") == told(tmp_path / "one")
    order = [row.id for row in read_jsonl(tmp_path / "two" / "responses.jsonl", Response)]
    assert order != [row.id for row in read_jsonl(tmp_path / "one" / "responses.jsonl", Response)]  # two shares


def test_tasks_that_do_not_come_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a job script that forgets srun: SLURM tells of two tasks, and there is one."""
    for name, value in {"NTASKS": "2", "PROCID": "0", "LOCALID": "0", "JOB_NAME": "evaluate"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    with pytest.raises(ConfigError, match="--ntasks-per-node=2"), joined():
        pass
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    monkeypatch.setattr("vlsafe.evaluation.sharing._FOUND_WITHIN", timedelta(seconds=1))
    with pytest.raises(ConfigError, match="one of 2 tasks, but they did not find each other"), joined():
        pass
    monkeypatch.setenv("SLURM_NTASKS", "1")
    with joined() as processes:
        assert processes == ALONE
