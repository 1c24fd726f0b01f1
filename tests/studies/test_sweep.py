"""The sweep without a server, on trials that take no time: what is run, kept, taken up, given up and told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.stopped import Told
from vlsafe.__main__ import main

pytestmark = pytest.mark.slow  # processes that start processes

TRIAL = """
import json, pathlib, sys, time
given = dict(word[2:].split("=", 1) for word in sys.argv[1:])
run = pathlib.Path(given["run_dir"])
run.mkdir(parents=True, exist_ok=True)
with open(given["log"], "a") as log:
    log.write(json.dumps(given) + "\\n")
rate = float(given["x"])
with open(run / "metrics.csv", "w") as file:
    file.write("step,objective\\n")
    for step in range(1, int(given.get("probes", 0)) + 1):
        file.write(f"{step},{rate}\\n")
        file.flush()
        time.sleep(0.25)
while not pathlib.Path(given["gate"]).exists():
    time.sleep(0.02)
if given.get("fails") == str(rate):
    print("out of luck")
    sys.exit(1)
report = {"objective": {"value": rate}, "metrics": {}}
(run / "report.json").write_text(json.dumps(report))
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Any:
    """Writes a sweep file over ``x`` whose trials write down what they were given."""
    (tmp_path / "trial.py").write_text(TRIAL)
    (tmp_path / "gate").touch()

    def write(**changed: Any) -> Path:
        fixed = {"log": str(tmp_path / "log"), "gate": str(tmp_path / "gate")} | changed.pop("fixed", {})
        content = {
            "method": "grid",
            "metric": {"name": "objective", "goal": "maximize"},
            "command": ["${env}", "${interpreter}", str(tmp_path / "trial.py"), "${args}"],
            "parameters": {"x": {"values": [1, 3, 2]}} | {k: {"value": v} for k, v in fixed.items()},
        }
        path = tmp_path / "toy.yaml"
        path.write_text(yaml.safe_dump(content | changed))
        return path

    return write


def begun(tmp_path: Path) -> list[str]:
    log = tmp_path / "log"
    return [json.loads(line)["x"] for line in log.read_text().splitlines()] if log.exists() else []


def trials(study: Path) -> list[dict[str, Any]]:
    return json.loads((study / "trials.json").read_text())


def test_a_grid_runs_once_and_is_written_down(sweep: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = sweep(), tmp_path / "study"
    assert main(["sweep", str(path), "--out", str(out), "--workers", "2"]) == 0
    assert sorted(begun(tmp_path)) == ["1", "2", "3"]
    assert [(row["state"], row["objective"]) for row in trials(out)] == [("complete", x) for x in (1, 3, 2)]
    assert "objective" in capsys.readouterr().out
    assert main(["sweep", str(path), "--out", str(out)]) == 2  # a study is not begun twice by mistake
    assert "--resume" in capsys.readouterr().err
    assert main(["sweep", str(path), "--out", str(out), "--resume"]) == 0
    assert len(begun(tmp_path)) == 3  # and no finished trial is run again
    path.write_text(path.read_text() + "\n# changed\n")
    assert main(["sweep", str(path), "--out", str(out), "--resume"]) == 2


def test_count_is_of_the_study(sweep: Any, tmp_path: Path) -> None:
    path, out = sweep(), tmp_path / "study"
    assert main(["sweep", str(path), "--out", str(out), "--count", "1"]) == 0
    assert main(["sweep", str(path), "--out", str(out), "--count", "2", "--resume"]) == 0
    assert begun(tmp_path) == ["1", "3"]


@pytest.mark.parametrize("trial_dies_too", [True, False])
def test_a_killed_sweep_goes_on_where_it_was(sweep: Any, tmp_path: Path, trial_dies_too: bool) -> None:
    """SIGKILL while the second trial runs: the first is not run again, the second exactly once to its end."""
    path, out, gate = sweep(), tmp_path / "study", tmp_path / "gate"
    command = [sys.executable, "-m", "vlsafe", "sweep", str(path), "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        while begun(tmp_path)[:1] != ["1"]:
            time.sleep(0.01)
        gate.unlink()  # whatever has not passed it yet now waits
        deadline = time.monotonic() + 30
        while len(begun(tmp_path)) < 2 and not _waits_in_first(out) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
    waiting = len(begun(tmp_path))
    if trial_dies_too:
        _kill_trials(out)
    gate.touch()
    assert main(["sweep", str(path), "--out", str(out), "--resume"]) == 0
    assert [(row["state"], row["objective"]) for row in trials(out)] == [("complete", x) for x in (1, 3, 2)]
    assert len(begun(tmp_path)) == 3 + trial_dies_too, waiting


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)])
def test_a_sweep_that_is_told_to_stop_tells_its_trials(sweep: Any, tmp_path: Path, number: int, status: int) -> None:
    """Two at a time; each gets SIGTERM, as a run's own processes do, and is taken up by the next sweep."""
    (tmp_path / "gate").unlink()
    path, out = sweep(), tmp_path / "study"
    running = Told(["sweep", str(path), "--out", str(out), "--workers", "2"], tmp_path)
    running.once(lambda _: len(begun(tmp_path)) == 2).tell(number)
    assert running.status() == status, running.said
    assert "Traceback" not in running.said and not _trials_of(out)
    (tmp_path / "gate").touch()
    assert main(["sweep", str(path), "--out", str(out), "--resume"]) == 0
    assert [row["state"] for row in trials(out)] == ["complete"] * 3


def _waits_in_first(out: Path) -> bool:
    """The first trial had not passed the gate: then it is the one that waits."""
    time.sleep(1.5)
    return not (out / "trials" / "0000" / "run" / "report.json").exists()


def _kill_trials(out: Path) -> None:
    for process in _trials_of(out):
        os.kill(process.pid, signal.SIGKILL)
        process.wait(5)


def _trials_of(out: Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(word.startswith(f"--run_dir={out}") for word in process.info["cmdline"] or [])
    ]


def test_a_failing_trial_is_told_and_the_others_run(
    sweep: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    assert main(["sweep", str(sweep(fixed={"fails": "3.0"})), "--out", str(out)]) == 1
    assert [row["state"] for row in trials(out)] == ["complete", "fail", "complete"]
    assert "trial 1 failed" in (said := capsys.readouterr().err) and "out of luck" in said


def test_trials_that_fall_behind_are_stopped(sweep: Any, tmp_path: Path) -> None:
    path = sweep(
        parameters={"x": {"values": [9, 1]}}
        | {
            k: {"value": v}
            for k, v in {"log": str(tmp_path / "log"), "gate": str(tmp_path / "gate"), "probes": 40}.items()
        },
        early_terminate={"type": "hyperband", "min_iter": 1, "eta": 2},
    )
    path.write_text(path.read_text().replace("value: 40", "value: 8"))
    out = tmp_path / "study"
    assert main(["sweep", str(path), "--out", str(out)]) == 0
    assert [row["state"] for row in trials(out)] == ["complete", "pruned"]
    assert not (out / "trials" / "0001" / "run" / "report.json").exists()


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_search_draws_within_its_range_and_needs_an_end(
    sweep: Any, tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = {k: {"value": str(tmp_path / k)} for k in ("log", "gate")}
    path = sweep(method=method, parameters={"x": {"distribution": "log_uniform_values", "min": 1e-3, "max": 1}} | fixed)
    assert main(["sweep", str(path), "--out", str(tmp_path / "study")]) == 2
    assert "--count" in capsys.readouterr().err
    assert main(["sweep", str(path), "--out", str(tmp_path / "again"), "--count", "3", "--workers", "3"]) == 0
    drawn = [float(x) for x in begun(tmp_path)]
    assert len(set(drawn)) == 3 and all(1e-3 <= x <= 1 for x in drawn)


def test_slurm_writes_an_array_of_workers_on_one_journal(sweep: Any, tmp_path: Path) -> None:
    out = tmp_path / "study"
    assert main(["sweep", str(sweep()), "--out", str(out), "--slurm", "--workers", "4"]) == 0
    script = (out / "sweep.slurm").read_text()
    assert "#SBATCH --array=1-4" in script
    assert begun(tmp_path) == []
    assert subprocess.run(["bash", str(out / "sweep.slurm")], capture_output=True, check=False).returncode == 0
    assert begun(tmp_path) == ["1", "3", "2"]
