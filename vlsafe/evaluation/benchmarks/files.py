"""Reading benchmark files, with errors that say which file, which row and how to get it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from vlsafe.errors import DataError


def read_csv(path: Path, columns: Sequence[str], get: str) -> list[dict[str, str]]:
    """Rows of a CSV file with a header. Raises DataError for a missing file, a missing column or an empty cell."""
    text = _text(path, get)
    reader = csv.DictReader(text.splitlines(keepends=True))
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise DataError(
            f"{path}: no column {', '.join(repr(column) for column in missing)}; it has "
            f"{', '.join(reader.fieldnames or ()) or 'none'}; is this the right file?"
        )
    rows: list[dict[str, str]] = []
    problems: list[str] = []
    for number, row in enumerate(reader, start=1):
        rows.append(row)
        problems += [
            f"{path}, record {number}: {column} is empty" for column in columns if not (row[column] or "").strip()
        ]
    if problems:
        raise DataError(problems)
    return rows


def require(path: Path, get: str) -> None:
    """Raises DataError, with how to get the file, when it is not there."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; get it with `{get}`, or correct the path")


def _text(path: Path, get: str) -> str:
    require(path, get)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error}); get it again with `{get}`") from error
