"""Small pictures and files for the sources' tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


@pytest.fixture
def draw() -> Callable[[Path, Iterable[str]], Path]:
    """Draw a picture of one colour for every name, below a folder."""

    def draw_all(folder: Path, names: Iterable[str]) -> Path:
        for number, name in enumerate(dict.fromkeys(names)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (2, 2), (number % 256, number // 256, 0)).save(folder / name, "PNG")
        return folder

    return draw_all


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Any], Path]:
    """Write JSON to a file of the test's folder."""

    def write_json(name: str, value: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value), encoding="utf-8")
        return path

    return write_json
