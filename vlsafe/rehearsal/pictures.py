"""Pictures for made-up records: of several shapes, each of one colour."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

SIZES = ((32, 32), (96, 40), (40, 112), (64, 64))
COLOURS = ("red", "green", "blue", "white", "black")


def drawn(folder: Path, names: list[str]) -> None:
    """One picture for each name, square, wide and tall ones in turn."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZES[number % len(SIZES)], COLOURS[number % len(COLOURS)]).save(path)
