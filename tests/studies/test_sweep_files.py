"""Every sweep file that is shipped: valid for W&B, and each trial's arguments build a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from vlsafe.cli import built
from vlsafe.errors import ConfigError
from vlsafe.studies.sweep_file import SweepFile, Values, read_sweep

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "sweeps").glob("*.yaml"))
OVERLAYS = sorted((ROOT / "sweeps").glob("*/*.yaml"))


def combinations(sweep: SweepFile) -> list[Values]:
    """The whole grid; of a search the corners of its space."""
    if sweep.method == "grid":
        return list(sweep.grid())
    return [
        {name: (p.values[end] if p.values else (p.low, p.high)[end]) for name, p in sweep.parameters.items()}
        for end in (0, -1)
    ]


def test_all_four_are_there() -> None:
    assert [path.stem for path in FILES] == ["forgetting", "lr_rank", "method", "ratio"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_trial_builds_a_run_of_its_own(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    sweep = read_sweep(path)
    trials = combinations(sweep)
    # A run is built for the first and the last trial and for each value of an overlay; the folders tell all apart.
    heads = {json.dumps(trial.get("config")): trial for trial in [*trials, trials[0]]}
    directories = []
    for trial in heads.values():
        command = sweep.rendered(trial)
        assert command[:4] == [sys.executable, "-m", "vlsafe", "fit"]
        run = built(command[4:])
        directories.append(run.config.run_dir)
        assert run.config.seed_everything == run.datamodule.seed == trial["seed_everything"]
        assert sum(part.share for part in run.datamodule.parts.values()) == pytest.approx(1)
    assert len(set(directories)) == len(heads)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_arguments_are_those_of_wandb(path: Path) -> None:
    sweep = read_sweep(path)
    for trial in combinations(sweep):
        theirs = create_sweep_command_args({"args": {name: {"value": value} for name, value in trial.items()}})
        assert sweep.arguments(trial) == theirs["args"]
    raw = yaml.safe_load(path.read_text())["command"]
    assert create_sweep_command(list(raw)) == raw  # it holds no macro of the environment
    assert raw[:4] == ["${env}", "${interpreter}", "-m", "vlsafe"] and raw[-1] == "${args}"


def test_every_overlay_is_used() -> None:
    text = "".join(path.read_text() for path in FILES)
    assert [path.name for path in OVERLAYS if f"sweeps/overlays/{path.name}" not in text] == []


def test_every_header_tells_command_and_cost() -> None:
    for path in FILES:
        assert f"python -m vlsafe sweep sweeps/{path.name}" in path.read_text() and "# Cost:" in path.read_text()


GOOD = {
    "method": "grid",
    "metric": {"name": "objective", "goal": "maximize"},
    "command": ["${interpreter}", "-m", "vlsafe", "fit", "--config", "c.yaml", "${args}"],
    "parameters": {"seed_everything": {"values": [0, 1]}},
}


@pytest.mark.parametrize(
    "change, words",
    [
        ({"methd": "grid"}, "Did you mean 'method'"),
        ({"method": "annealing"}, "must be one of grid"),
        ({"command": ["vlsafe", "fit"]}, "holds ${args}"),
        ({"command": ["vlsafe", "fit", "${args}", "--config", "c.yaml"]}, "put ${args} last"),
        ({"parameters": {"a": {"values": [None, 1]}}}, "the text None"),
        ({"parameters": {"a": {"parameters": {"b": {"value": 1}}}}}, "flat dotted names"),
        ({"parameters": {"a": {"min": 0.1, "max": 1}}}, "a grid needs values"),
        ({"early_terminate": {"type": "median"}}, "only type: hyperband"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, change: dict, words: str) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(GOOD | change))
    with pytest.raises(ConfigError) as error:
        read_sweep(path)
    assert words in str(error.value) and str(path) in str(error.value)
