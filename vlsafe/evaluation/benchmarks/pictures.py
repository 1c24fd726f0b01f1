"""Pictures that are made or unpacked here, once, and kept beside the fetched assets."""

from __future__ import annotations

import hashlib
import io
import os
from functools import partial
from pathlib import Path
from typing import Literal

from PIL import Image

from vlsafe.conversation import ImageRef
from vlsafe.errors import ConfigError
from vlsafe.fetch.paths import cache_directory

ImageCondition = Literal["none", "blank", "black"]
"""What stands beside a text: no picture, a white one, a black one. It decides the numbers, so metrics name it."""

SIDE = 336
"""Pixels of a plain picture's side: what CLIP of LLaVA-1.5 reads without resizing."""


def plain(condition: ImageCondition) -> ImageRef | None:
    """The picture of a condition. Raises ConfigError for a condition that is none of them."""
    colours = {"none": None, "blank": "white", "black": "black"}
    if condition not in colours:
        raise ConfigError(f"image condition {condition!r}: choose one of {', '.join(colours)}")
    colour = colours[condition]
    return None if colour is None else drawn("plain", f"{colour}-{SIDE}.png", partial(_square, colour))


def _square(colour: str) -> Image.Image:
    return Image.new("RGB", (SIDE, SIDE), colour)


def drawn(folder: str, name: str, draw: partial[Image.Image]) -> ImageRef:
    """A picture that ``draw`` makes when it is not there yet."""
    ref = ImageRef(_made() / folder, name)
    if not (ref.root / name).is_file():
        buffer = io.BytesIO()
        draw().save(buffer, "PNG")
        _write(ref, buffer.getvalue())
    return ref


def unpacked(data: bytes) -> ImageRef:
    """A picture that a table holds as bytes, kept as a file named by its content."""
    digest = hashlib.sha256(data).hexdigest()
    ref = ImageRef(_made() / "unpacked", f"{digest[:2]}/{digest}")
    if not (ref.root / ref.name).is_file():
        _write(ref, data)
    return ref


def _made() -> Path:
    return cache_directory() / "made"


def _write(ref: ImageRef, data: bytes) -> None:
    path = ref.root / ref.name
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_name(f"{path.name}.{os.getpid()}.partial")  # another process may make the same one
    partial_path.write_bytes(data)
    os.replace(partial_path, path)
