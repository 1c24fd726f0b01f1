"""What is rehearsed, and which run waits for which."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.recipes import ROOT, STAGES
from tests.tiny_run import tiny_run
from vlsafe.errors import ConfigError
from vlsafe.rehearsal.asked import asked
from vlsafe.rehearsal.schedule import _comes_later

BASE = "experiments/llava15_7b.yaml"


@pytest.fixture(autouse=True)
def _at_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_configs_are_laid_over_each_other_and_flags_over_all(tmp_path: Path) -> None:
    one, two = asked([f"{BASE},experiments/llava15_7b_stage1.yaml", BASE], ["over.yaml"], ["--a.b=c"], tmp_path)
    over = ("--config=over.yaml", "--a.b=c")
    assert one.argv == (f"--config={BASE}", "--config=experiments/llava15_7b_stage1.yaml", *over)
    assert (one.name, one.makes) == ("experiments/llava15_7b_stage1.yaml", "runs/llava15_7b_stage1/model")
    assert (two.makes, two.starts_from) == ("", "llava-hf/llava-1.5-7b-hf")
    (alone,) = asked([], [BASE, "over.yaml"], [], tmp_path)
    assert alone.argv == (f"--config={BASE}", "--config=over.yaml")
    with pytest.raises(ConfigError, match="nothing to rehearse"):
        asked([], [], [], tmp_path)


def test_a_sweep_is_its_first_trial(tmp_path: Path) -> None:
    grid, ranges = asked(["sweeps/forgetting.yaml", "sweeps/lr_rank.yaml"], [], [], tmp_path)
    assert grid.name == "sweeps/forgetting.yaml, first trial" and grid.starts_from == "runs/quickstart/model"
    assert "--config=sweeps/overlays/helpful_both.yaml" in grid.argv
    assert "--data.init_args.parts.safety.share=0.1" in grid.argv and "--seed_everything=0" in grid.argv
    assert "--model.init_args.components.language.learning_rate=0.0001" in ranges.argv


def test_stages_are_one_pipeline_whatever_their_order(tmp_path: Path) -> None:
    runs = asked([str(path.relative_to(ROOT)) for path in reversed(STAGES)], [], [], tmp_path)
    assert sorted(run.name for run in runs) == [str(path.relative_to(ROOT)) for path in STAGES]
    made = {run.makes: run.name for run in runs}
    starts = {Path(run.name).stem: made.get(run.starts_from, "") for run in runs}
    assert (
        starts["1_text_safety"] == ""
        and starts["2_visual"] == starts["3_mixed"] == "experiments/story/1_text_safety.yaml"
    )
    assert {starts[name] for name in ("4_posthoc", "5_safety_only", "6_text_posthoc", "7_ratio")} == {
        "experiments/story/2_visual.yaml"
    }
    ratio = next(run for run in runs if "7_ratio" in run.name)
    assert "--data.init_args.parts.safety.share=0.0" in ratio.argv and len([r for r in runs if "7" in r.name]) == 1


def test_a_run_waits_for_the_one_that_makes_its_checkpoint(tmp_path: Path) -> None:
    recipes = ("mixed_lora", "posthoc_lora", "stage1")
    runs = asked([f"{BASE},experiments/llava15_7b_{name}.yaml" for name in recipes], [], [], tmp_path)
    assert [_comes_later(number, run, runs, {0, 1, 2}) for number, run in enumerate(runs)] == [True, False, False]
    assert not _comes_later(0, runs[0], runs, {0, 1})


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_leaves_nothing_behind_when_it_is_stopped(number: int, tmp_path: Path) -> None:
    config = tiny_run(tmp_path)
    command = [sys.executable, "-m", "vlsafe", "rehearse", "--config", str(config), "--keep", str(tmp_path / "kept")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    begun = tmp_path / "kept" / "00" / "first" / "phases.0"
    deadline = time.monotonic() + 120
    while not begun.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert begun.exists()
    process.send_signal(number)
    assert process.wait(30) == {signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    time.sleep(1)
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in running
