"""The first records of a config's own sources, so that a large one need not be read."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

from vlsafe.data.index.streams import open_stream
from vlsafe.data.problems import Malformed
from vlsafe.data.sources.rows import read_rows
from vlsafe.rehearsal.records import Options

FIRST = 64


def first_records(kind: str, options: Options, path: Path, folder: Path) -> Options | None:
    """Options that open the first records of the source at ``path``; None where it is read whole.

    Raises DataError where they cannot be read.
    """
    if kind in ("llava", "messages", "alpaca"):
        rows = [row for row, _ in islice(open_stream(path), FIRST)]
        if any(isinstance(row, Malformed) for row in rows):
            return None  # the source itself says what is wrong, by its own policy
        excerpt = folder / "first.json"
        _write(excerpt, rows)
        images = {} if kind == "alpaca" else {"images": str(options.get("images") or path.parent)}
        return options | {"path": str(excerpt)} | images
    return _first_of_vlguard(options, path, folder) if kind == "vlguard" else None


def _first_of_vlguard(options: Options, path: Path, folder: Path) -> Options | None:
    """The first of each category, that a choice of some of them finds them."""
    split = options.get("split", "train")
    rows = list(read_rows(path / f"{split}.json"))
    if not all(isinstance(row, dict) for row in rows):
        return None
    kept: dict[str, list[dict]] = {}
    for row in rows:
        some = kept.setdefault(str(row.get("harmful_category") if not row.get("safe") else ""), [])
        if len(some) < FIRST // 8:
            some.append(row)
    _write(folder / f"{split}.json", [row for some in kept.values() for row in some])
    for pictures in (path / split, path / f"{split}.zip"):
        if pictures.exists():
            (folder / pictures.name).symlink_to(pictures.absolute())
    return options | {"path": str(folder), "split": split}


def _write(path: Path, rows: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
