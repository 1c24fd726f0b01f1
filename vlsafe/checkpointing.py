"""Checkpoints that are whole or not there: written beside their place, flushed to the disk, then renamed into it.

A checkpoint is a file of ``torch.save``, whose every record carries a CRC-32, or, where processes save their own
shards (:mod:`vlsafe.strategies.shards`), a folder with ``checksums.json``. Either way a file that is cut short or
damaged is told apart from a good one before anything is read out of it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import CheckpointIO

from vlsafe.errors import DataError
from vlsafe.strategies.shards import REST, assembled

CHECKSUMS = "checksums.json"
_PARTIAL, _PREVIOUS = ".partial", ".previous"

logger = logging.getLogger(__name__)


class AtomicCheckpointIO(CheckpointIO):
    """How Lightning's strategies write, read and remove checkpoints here."""

    def __init__(self) -> None:
        self.whole: dict[Path, Path] = {}
        """A checkpoint -> the one to read in its place, which a process of the run has found to be whole."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        with appearing(Path(path)) as partial:
            torch.save(checkpoint, partial)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """The checkpoint, its tensors mapped from the file; of shards, every tensor put together.

        Raises DataError where the checkpoint is missing or damaged, naming the newest whole one beside it.
        """
        known = self.whole.get(Path(path))
        if known is None:
            require_whole(Path(path))
        return opened(known or Path(path), weights_only=weights_only is not False)

    def remove_checkpoint(self, path: Any) -> None:
        if Path(path).is_dir():
            shutil.rmtree(path)
        else:
            Path(path).unlink(missing_ok=True)


def loaded(path: Path, weights_only: bool = True) -> dict[str, Any]:
    """As :meth:`AtomicCheckpointIO.load_checkpoint`."""
    require_whole(path)
    return opened(path, weights_only)


def opened(path: Path, weights_only: bool = True) -> dict[str, Any]:
    """As :func:`loaded`, of one that is known to be whole."""
    rest = rest_of(path, weights_only)
    return assembled(path, rest) if path.is_dir() else rest


def rest_of(path: Path, weights_only: bool = True) -> dict[str, Any]:
    """Everything of a checkpoint but tensors that lie in shards. Quick: what lies in the file is mapped, not read."""
    file = path / REST if path.is_dir() else path
    return torch.load(file, map_location="cpu", mmap=True, weights_only=weights_only)


# --- whole or not -------------------------------------------------------------------------------------------------


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, in a few words; None for a whole one. Reads all of it."""
    if not path.exists():
        return "no such file"
    return _folder_damage(path) if path.is_dir() else _file_damage(path)


def _file_damage(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        return f"cut short or overwritten ({error})"
    return None if bad is None else f"its record {bad} does not match its checksum"


def _folder_damage(path: Path) -> str | None:
    try:
        recorded: dict[str, str] = json.loads((path / CHECKSUMS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"{CHECKSUMS} is missing or cut short"
    for name, expected in recorded.items():
        if not (path / name).is_file():
            return f"{name} is missing"
        if checksum(path / name) != expected:
            return f"{name} does not match its checksum"
    return None


def checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def require_whole(path: Path) -> None:
    """Raises DataError unless the checkpoint is whole."""
    wrong = damage(path)
    if wrong is None:
        return
    other = newest_whole(path.parent, but=path)
    advice = f"go on from {other}, the newest whole one" if other else "there is no other whole one beside it"
    raise DataError(f"{path} cannot be used: {wrong}; {advice}")


def newest(directory: Path) -> Path | None:
    """The checkpoint written last, whole or not; None without one. Reads none of it."""
    return next(iter(_checkpoints(directory)), None)


def newest_whole(directory: Path, but: Path | None = None) -> Path | None:
    """The checkpoint written last that is whole; None without one. Damaged ones are passed over, saying so."""
    for path in [path for path in _checkpoints(directory) if path != but]:
        wrong = damage(path)
        if wrong is None:
            return path
        logger.warning("%s is passed over: %s", path, wrong)
    return None


def _checkpoints(directory: Path) -> list[Path]:
    """Checkpoints in place, and folders that were moved aside by a process that was killed before the new one came; the
    one written last is the first."""
    aside = [p for p in directory.glob(f".*.ckpt{_PREVIOUS}") if not p.with_name(_name_of(p)).exists()]
    return sorted([*directory.glob("*.ckpt"), *aside], key=lambda path: path.stat().st_mtime_ns, reverse=True)


def _name_of(aside: Path) -> str:
    return aside.name.removeprefix(".").removesuffix(_PREVIOUS)


# --- writing ------------------------------------------------------------------------------------------------------


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A name to write a file to (or to make a folder of), which becomes ``path`` when all of it is on the disk.

    What stood at ``path`` stays until then, whatever happens.
    """
    partial = path.with_name(f".{path.name}{_PARTIAL}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        for file in partial.iterdir() if partial.is_dir() else [partial]:
            _flush(file)
        if partial.is_dir():
            _flush(partial)
        _put(partial, path)
        _flush(path.parent)
    except Exception:
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)
        raise


def _put(partial: Path, path: Path) -> None:
    if not partial.is_dir() and not path.is_dir():
        os.replace(partial, path)
        return
    aside = path.with_name(f".{path.name}{_PREVIOUS}")  # no system call replaces a folder that holds files
    shutil.rmtree(aside, ignore_errors=True)
    if path.exists():
        path.rename(aside)
    partial.rename(path)
    shutil.rmtree(aside, ignore_errors=True) if aside.is_dir() else aside.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
