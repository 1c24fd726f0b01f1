"""Every YAML under experiments/ is parsed: keys, types, class paths, and what its header tells to run.

The files under sweeps/ are parsed by tests/studies.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml

from tests.recipes import BASE, ROOT, RUNS, STAGES, header
from vlsafe.cli import built
from vlsafe.evaluation.published import rows
from vlsafe.studies.pipeline import Pipeline
from vlsafe.studies.stage_file import read_stages

HERE = ["--trainer.accelerator=cpu", "--trainer.precision=32-true"]


def named(path: Path) -> str:
    return "-".join(path.relative_to(ROOT / "experiments").with_suffix("").parts)


def test_there_are_experiments() -> None:
    assert len(RUNS) >= 40 and len(STAGES) == 7


@pytest.mark.parametrize("path", RUNS, ids=named)
def test_it_parses_as_its_header_says(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    commands = [line for line in header(path) if line.startswith("python -m vlsafe fit")]
    if path == BASE:
        argv = ["--config", str(path)]
    else:
        assert commands, f"{path.name}: its header names no `python -m vlsafe fit` command"
        argv = shlex.split(commands[0])[4:]
        assert argv[-1] == str(path.relative_to(ROOT)), "the file itself is laid on last"
    run = built([*argv, *HERE])
    assert run.model.components.items()
    assert run.datamodule.parts


@pytest.mark.parametrize("path", [*RUNS, *STAGES], ids=named)
def test_its_header_tells_cost_and_result(path: Path) -> None:
    assert path == BASE or "Cost" in " ".join(header(path))


def test_each_run_has_a_folder_of_its_own() -> None:
    folders = [yaml.safe_load(path.read_text()).get("run_dir") for path in RUNS if path != BASE]
    assert len(set(folders)) == len(folders) and None not in folders


def test_every_tuned_row_of_the_paper_has_a_run() -> None:
    repeated = {yaml.safe_load(path.read_text()).get("evaluation", {}).get("published") for path in RUNS} - {None}
    of_others = {"lora", "clean", "clean-lora", "safety-0"}  # rows of untuned models and of the cleaned data
    asked = {row for row in rows() if "/" in row and row.partition("/")[2] not in of_others}
    assert repeated == asked


@pytest.mark.parametrize("path", STAGES, ids=named)
@pytest.mark.parametrize("model", ["small", "tiny", "7b"])
def test_a_stage_parses_on_every_model(path: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``7b``: by the one line that its header says to change."""
    monkeypatch.chdir(ROOT)
    small = "[experiments/quickstart.yaml, experiments/story/shared/small.yaml, "
    changed = []
    for each in STAGES:
        assert small in each.read_text()
        changed.append(tmp_path / each.name)
        changed[-1].write_text(
            each.read_text().replace(small, "[experiments/llava15_7b.yaml, ") if model == "7b" else each.read_text()
        )
    overlays = [Path("experiments/story/shared/tiny.yaml")] if model == "tiny" else []
    pipeline = Pipeline(read_stages(changed), tmp_path, overlays)
    stage = [each for each in pipeline.stages if each.path.name == path.name][-1]
    run = built([*pipeline.command(stage, tmp_path)[4:], *HERE])
    assert sum(part.share for part in run.datamodule.parts.values()) == pytest.approx(1)
    checkpoint = None if stage.after is None else str(tmp_path / stage.after / "run" / "model")
    backbone = run.config.model.init_args.backbone
    assert backbone.init_args.get("checkpoint", None) == (
        "llava-hf/llava-1.5-7b-hf" if checkpoint is None and model == "7b" else checkpoint
    )
    if checkpoint is not None:
        assert backbone.init_args.dtype == ("bfloat16" if model == "7b" else "float32")
