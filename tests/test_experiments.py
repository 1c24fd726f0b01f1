"""Every YAML under experiments/ is parsed: keys, types, class paths, and what its header tells to run.

The files under sweeps/ are parsed by tests/studies.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from vlsafe.cli import built

ROOT = Path(__file__).parents[1]
FILES = sorted(ROOT.glob("experiments/**/*.yaml"))
BASES = {"llava15_7b.yaml"}
"""Laid under others, never run on their own."""


def test_there_are_experiments() -> None:
    assert len(FILES) >= 9


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_parses_as_its_header_says(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    header = [line[1:].strip() for line in path.read_text().splitlines() if line.startswith("#")]
    commands = [line for line in header if line.startswith("python -m vlsafe fit")]
    if path.name in BASES:
        argv = ["--config", str(path)]
    else:
        assert commands, f"{path.name}: its header names no `python -m vlsafe fit` command"
        argv = shlex.split(commands[0])[4:]
        assert argv[-1] == str(path.relative_to(ROOT)), "the file itself is laid on last"
    run = built([*argv, "--trainer.accelerator=cpu", "--trainer.precision=32-true"])
    assert run.model.components.items()
    assert run.datamodule.parts


@pytest.mark.parametrize("path", [f for f in FILES if f.name not in BASES], ids=lambda path: path.stem)
def test_its_header_tells_cost_and_result(path: Path) -> None:
    header = "\n".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    assert "Cost" in header
