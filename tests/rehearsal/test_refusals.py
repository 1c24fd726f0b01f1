"""What is broken in a config is told in its phase, with its words and its status; nothing of the user's is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.rehearsal.conftest import Rehearsed, rehearse
from tests.tiny_run import tiny_run
from vlsafe.rehearsal.phases import PHASES

pytestmark = pytest.mark.slow

_BENCHMARKS = "vlsafe.evaluation.benchmarks"
_CALLBACK = "tests.rehearsal.failing"


def _benchmark(name: str, **arguments: Any) -> dict[str, Any]:
    return {"evaluation": {"benchmarks": [{"class_path": f"{_BENCHMARKS}.{name}", "init_args": arguments}]}}


def _callback(name: str, **arguments: Any) -> dict[str, Any]:
    return {"trainer": {"callbacks": [{"class_path": f"{_CALLBACK}.{name}", "init_args": arguments}]}}


BROKEN: dict[str, tuple[dict[str, Any], str, int, str]] = {
    "unknown key": ({"data": {"init_args": {"batch_sizes": 4}}}, "parse", 2, "Did you mean 'batch_size'?"),
    "impossible shares": (
        {"data": {"init_args": {"parts": {"text": {"share": 0.5}}}}}, "parse", 2, "the shares sum to 0.5, not 1"
    ),
    "float16": ({"trainer": {"precision": "16-mixed"}}, "open data", 2, "trainer.precision 16-mixed scales"),
    "4 bits cut over processes": (
        {
            "trainer": {"strategy": "fsdp2"},
            "model": {"init_args": {"components": {"language": {"train": "qlora"}}}},
        }, "open data", 2, "4-bit weights (train: qlora) cannot be cut",
    ),
    "missing benchmark": (
        _benchmark("pope.POPE", path="no_such"), "open data", 1, "run `python -m vlsafe fetch coco-val2014`"
    ),
    "one side": (_benchmark("advbench.AdvBench", path="no_such.csv"), "open data", 1, "would look safe"),
    "no such component": (
        {"model": {"init_args": {"components": {"language": {"targets": ["no_such"]}}}}}, "load", 2, "no_such"
    ),
    "a step": (_callback("Fails", hook="on_before_optimizer_step"), "two optimizer steps", 1, "made to fail"),
    "resuming": (_callback("Forgets"), "kill and resume", 1, "differs from the killed one's"),
    "report": (_callback("Fails", hook="teardown"), "report", 1, "made to fail"),
    "whole": ({}, "", 0, ""),
}  # fmt: skip
"""Name -> overlay, the phase that fails, its exit status, and some of its words."""


@pytest.fixture(scope="session")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Rehearsed:
    folder = tmp_path_factory.mktemp("broken")
    config = tiny_run(folder)
    (folder / "run").mkdir()
    (folder / "run" / "report.json").write_text("mine")
    runs = []
    for name, (overlay, *_) in BROKEN.items():
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(overlay))
        runs.append(f"{config},{path}")
    return rehearse(folder / "kept", "--workers=2", *runs)


def _result(broken: Rehearsed, name: str) -> Any:
    return next(result for path, result in broken.results.items() if Path(path).stem == name)


@pytest.mark.parametrize("name", [name for name in BROKEN if name != "whole"])
def test_it_fails_in_its_phase(broken: Rehearsed, name: str) -> None:
    _, phase, status, words = BROKEN[name]
    result = _result(broken, name)
    states = {each.name: each.state for each in result.phases}
    failed = [each for each in result.phases if each.state == "failed"]
    assert [each.name for each in failed] == [phase], failed
    assert result.status == status and words in failed[0].note
    after = PHASES[PHASES.index(phase) + 1 :]
    assert {states[each] for each in after} <= {"not reached"}
    assert words.split(";")[0] in " ".join(broken.printed.split())


def test_one_failure_fails_the_command(broken: Rehearsed) -> None:
    assert broken.status == 1
    assert f"1 of {len(BROKEN)} rehearsals passed" in broken.printed
    assert _result(broken, "whole").status == 0


def test_the_run_directory_stays_as_it_was(broken: Rehearsed) -> None:
    run = broken.folder.parent / "run"
    assert [path.name for path in run.iterdir()] == ["report.json"] and (run / "report.json").read_text() == "mine"


def test_own_data_is_taken_where_it_is_there(broken: Rehearsed) -> None:
    """Every source of this config is a file: its first records, its own pictures; none too long for `error`."""
    told = [change for change in _result(broken, "whole").changes if change.phase == "open data"]
    assert {change.by for change in told} == {"its first records (64 at most)"} and len(told) == 5


def test_flags_must_be_whole_and_there_must_be_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vlsafe.__main__ import main

    assert main(["rehearse"]) == 2
    assert "nothing to rehearse" in capsys.readouterr().err
    assert main(["rehearse", "--config", "x.yaml", "--data.seed"]) == 2
    assert "written --key=value" in capsys.readouterr().err
    assert main(["rehearse", "--config", "x.yaml", "--keep", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err
