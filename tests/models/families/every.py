"""The tiny checkpoints of every family of the table, and one of them on disk."""

from __future__ import annotations

import importlib
from pathlib import Path

from making import Family, strong

FILES = ("llava", "llava_next", "llava_onevision", "qwen", "internvl", "idefics", "google", "mllama", "minigpt")
FAMILIES: list[Family] = [
    value
    for name in FILES
    for value in vars(importlib.import_module(f"family_{name}")).values()
    if isinstance(value, Family)
]


def written(family: Family, folder: Path) -> Path:
    """The folder, with a checkpoint of the family in it."""
    strong(family.write(folder)).save_pretrained(folder)
    return folder
