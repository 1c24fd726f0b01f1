"""One recipe of each kind, rehearsed once by the command as a user calls it."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.recipes import ROOT
from vlsafe.__main__ import main
from vlsafe.rehearsal.phases import Result


@dataclass(frozen=True)
class Rehearsed:
    status: int
    printed: str
    folder: Path
    results: dict[str, Result]


def rehearse(folder: Path, *argv: str) -> Rehearsed:
    """The command, from the top of the checkout, with everything kept in ``folder``."""
    printed, before = io.StringIO(), Path.cwd()
    os.chdir(ROOT)
    try:
        with redirect_stdout(printed):
            status = main(["rehearse", *argv, "--keep", str(folder)])
    finally:
        os.chdir(before)
    results = [Result.read(path) for path in sorted(folder.glob("*/result.json"))]
    return Rehearsed(status, printed.getvalue(), folder, {result.name: result for result in results})


Laid = Callable[..., Path]


@pytest.fixture
def laid(tmp_path: Path) -> Laid:
    """Writes an overlay: dotted key -> value."""

    def write(name: str = "overlay.yaml", **values: object) -> Path:
        content: dict = {}
        for key, value in values.items():
            *parents, last = key.split(".")
            holder = content
            for parent in parents:
                holder = holder.setdefault(parent, {})
            holder[last] = value
        path = tmp_path / name
        path.write_text(yaml.safe_dump(content))
        return path

    return write


def report(rehearsed: Rehearsed, number: int) -> dict:
    return json.loads((rehearsed.folder / f"{number:02d}" / "run" / "report.json").read_text())
