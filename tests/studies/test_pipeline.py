"""Stages run one from another: read, ordered, refused; and a real pipeline of the tiny model that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from vlsafe.__main__ import main
from vlsafe.errors import ConfigError
from vlsafe.studies.pipeline import model_fingerprint, record
from vlsafe.studies.stage_file import read_stages
from vlsafe.studies.trials import launch, locked

ROOT = Path(__file__).parents[2]


def written(folder: Path, name: str, header: dict[str, Any] | None, **content: Any) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content if header is None else {"stage": {"name": name} | header, **content}))
    return path


def test_stages_follow_the_one_that_they_start_from(tmp_path: Path) -> None:
    last = written(tmp_path, "last", {"after": "middle"})
    middle = written(tmp_path, "middle", {"after": "first"})
    stages = read_stages([last, written(tmp_path, "first", {}), middle])
    assert [stage.name for stage in stages] == ["first", "middle", "last"]


def test_a_grid_is_one_stage_for_each_combination(tmp_path: Path) -> None:
    path = written(tmp_path, "ratio", {"grid": {"a.share": [0.0, 0.5], "seed_everything": [0, 1, 2]}}, a={"b": 1})
    stages = read_stages([path])
    assert len(stages) == 6 and stages[0].name == "ratio-00"
    assert stages[5].flags == {"a.share": 0.5, "seed_everything": 2}
    assert len({stage.key([], None) for stage in stages}) == 6


def test_the_key_is_of_what_determines_the_run(tmp_path: Path) -> None:
    base = tmp_path / "base.yaml"
    base.write_text("trainer: {max_epochs: 1}\n")
    path = written(tmp_path, "one", {"configs": [str(base)]}, seed_everything=0)
    key = read_stages([path])[0].key([], "weights")
    path.write_text("# a comment\n" + path.read_text())
    assert read_stages([path])[0].key([], "weights") == key
    assert read_stages([path])[0].key([], "others") != key
    assert read_stages([path])[0].key([base], "weights") != key
    base.write_text("trainer: {max_epochs: 2}\n")
    assert read_stages([path])[0].key([], "weights") != key


@pytest.mark.parametrize(
    "header, content, words",
    [
        (None, {"seed_everything": 0}, "with a header `stage"),
        ({"aftr": "x"}, {}, "Did you mean 'after'"),
        ({"name": "a/b"}, {}, "a folder's name"),
        ({"configs": ["nowhere.yaml"]}, {}, "nowhere.yaml is not there"),
        ({"grid": {"a": []}}, {}, "lists of values"),
        ({"grid": {"a": [None]}}, {}, "the text None"),
        ({"after": "gone"}, {}, "none of these stages: one"),
        ({"after": "one"}, {}, "starts from itself"),
        ({}, {"run_dir": "x"}, "chosen by the pipeline"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, header: dict | None, content: dict, words: str) -> None:
    path = written(tmp_path, "one", header, **content)
    with pytest.raises(ConfigError) as error:
        read_stages([path])
    assert words in str(error.value) and str(path) in str(error.value)


def test_a_start_of_many_runs_and_a_name_used_twice_are_refused(tmp_path: Path) -> None:
    many = written(tmp_path, "many", {"grid": {"seed_everything": [0, 1]}})
    with pytest.raises(ConfigError, match="which is many runs"):
        read_stages([many, written(tmp_path, "next", {"after": "many"})])
    with pytest.raises(ConfigError, match="stage many is in"):
        read_stages([written(tmp_path, "a", {"name": "many"}), written(tmp_path, "b", {"name": "many"})])


def test_the_fingerprint_is_of_the_weights_and_not_of_the_card(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text("{}")
    before = model_fingerprint(tmp_path)
    (tmp_path / "README.md").write_text("made today")
    assert model_fingerprint(tmp_path) == before
    (tmp_path / "model.safetensors").write_bytes(b"weighty")
    assert model_fingerprint(tmp_path) != before


@pytest.mark.parametrize(("workers", "expected"), [(1, None), (1_000_000, "1")])
def test_each_of_several_workers_gets_its_share_of_the_cores(
    workers: int, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    tell = [sys.executable, "-c", "import os; print(os.environ.get('OMP_NUM_THREADS'))"]
    lock = locked(tmp_path)
    assert lock is not None
    running = launch(tell, 0, tmp_path, lock, workers)
    assert running.process.wait(30) == 0
    assert (tmp_path / "output.log").read_text().strip() == str(expected)


def test_no_worker_at_all_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "run", str(written(tmp_path, "one", {})), "--workers", "0"]) == 2
    assert "--workers is 0, must be at least 1" in capsys.readouterr().err


@pytest.fixture
def stages(config: Path, tmp_path: Path) -> list[Path]:
    """Three stages of the tiny model, the last of which is two runs."""
    content = yaml.safe_load(config.read_text())
    del content["run_dir"]
    content["checkpoints"] = {"every": 1}
    config.write_text(yaml.safe_dump(content))
    laid = {"configs": [str(config)]}
    start = {"model": {"init_args": {"backbone": {"init_args": {"dtype": "float32"}}}}, "data": {"init_args": {}}}
    start["data"]["init_args"]["padding_free"] = False
    grid = {"after": "second", "grid": {"seed_everything": [0, 1]}}
    longer = {"data": {"init_args": {"padding_free": False, "samples": 80}}}
    return [
        written(tmp_path, "first", laid),
        written(tmp_path, "second", laid | {"after": "first"}, **(start | longer)),
        written(tmp_path, "third", laid | grid, **start),
    ]


@pytest.mark.slow
def test_a_killed_pipeline_goes_on_and_runs_no_finished_stage_again(
    stages: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL of the pipeline and its stage in the middle of stage two; then the same command; then a changed stage."""
    out = tmp_path / "study"
    command = ["study", "run", *map(str, stages), "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-m", "vlsafe", *command], env=environment, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 600
        while not list(out.glob("second/run/checkpoints/step=*")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
        _kill_stage(out / "second")
    report = out / "first" / "run" / "report.json"
    first = (report.stat().st_mtime_ns, (out / "first" / "output.log").read_bytes())
    assert record(out / "first")["finished"] and not record(out / "second")["finished"]
    assert not (out / "second" / "run" / "report.json").exists()

    assert main([*command, "--workers", "2"]) == 0
    begun, ended = (out / "third-01" / "command.json", out / "third-00" / "run" / "report.json")
    assert begun.stat().st_mtime_ns < ended.stat().st_mtime_ns  # two that start from one run side by side
    said = capsys.readouterr().out
    assert "third-01" in said and "report:" in said
    assert first == (report.stat().st_mtime_ns, (out / "first" / "output.log").read_bytes())
    steps = (out / "second" / "run" / "metrics.csv").read_text()
    assert "\n19," in steps or ",19," in steps or steps.count("\n") >= 20  # every step, those before the kill too
    rows = json.loads((out / "stages.json").read_text())
    assert [(row["stage"], row["state"]) for row in rows] == [
        (name, "finished") for name in ("first", "second", "third-00", "third-01")
    ]
    assert all(0 <= row["asr"] <= 100 for row in rows)
    page = (out / "study.html").read_text()
    assert "4 runs of" in page and "third-01" in page
    answered = [out / stage / "run" / "evaluation" for stage in ("second", "third-01")]
    assert (answered[0] / "after/responses.jsonl").read_bytes() == (answered[1] / "before/responses.jsonl").read_bytes()
    started = yaml.safe_load((out / "second" / "run" / "config.yaml").read_text())["model"]["init_args"]["backbone"]
    assert started["init_args"]["checkpoint"] == str(out / "first" / "run" / "model")

    logs = {name: (out / name / "output.log").read_bytes() for name in ("first", "second", "third-00")}
    third = yaml.safe_load(stages[2].read_text())
    third["stage"]["grid"]["seed_everything"] = [0]
    third["trainer"] = {"max_stepz": 1}
    stages[2].write_text(yaml.safe_dump(third))
    assert main(command) == 1
    assert "max_stepz" in capsys.readouterr().err  # a stage that fails says why
    assert {name: (out / name / "output.log").read_bytes() for name in ("first", "second")} == {
        name: logs[name] for name in ("first", "second")
    }
    assert [path.name for path in out.glob("third-00.*")]  # what ran before under that name is kept


def _kill_stage(folder: Path) -> None:
    import psutil

    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any(word.startswith(f"--run_dir={folder}") for word in words):
            os.kill(process.pid, signal.SIGKILL)
            process.wait(5)
