"""Reading benchmark files, with errors that say which file, which record and how to get it."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlsafe.errors import DataError, MissingDataError

KEY = "$key"
"""Column of a JSON file that is one object of records: the name under which a record stands."""

csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # tables hold pictures as base64


def read_csv(path: Path, columns: Sequence[str], get: str, delimiter: str = ",") -> list[dict[str, Any]]:
    """Rows of a CSV file with a header. Raises DataError for a missing file, a missing column or an empty cell."""
    reader = csv.DictReader(read_text(path, get).splitlines(keepends=True), delimiter=delimiter)
    return checked(list(reader), columns, path)


def read_records(path: Path, columns: Sequence[str], get: str) -> list[dict[str, Any]]:
    """Records of a ``.csv``, ``.tsv``, ``.json`` (a list, or an object of records), ``.jsonl`` or ``.parquet`` file, or
    of all parquet files of a folder. Raises DataError as :func:`read_csv`, and for what is no such file.

    A column is a key, or keys joined by dots where records are nested.
    """
    if path.is_dir():
        files = sorted(path.rglob("*.parquet"))
        if not files:
            raise DataError(f"{path}: a folder without parquet files; name the file, or get it with `{get}`")
        return [row for file in files for row in checked(_parquet(file), columns, file)]
    require(path, get)
    match path.suffix.lower():
        case ".csv":
            return read_csv(path, columns, get)
        case ".tsv":
            return read_csv(path, columns, get, "\t")
        case ".json":
            return checked(_json(path, get), columns, path)
        case ".jsonl":
            return checked(_json_lines(path, get), columns, path)
        case ".parquet":
            return checked(_parquet(path), columns, path)
        case suffix:
            raise DataError(
                f"{path}: cannot read {suffix or 'a file without an ending'}; give csv, tsv, json(l), parquet"
            )


def read_json(path: Path, get: str) -> Any:
    """Raises DataError when the file is missing or no JSON."""
    try:
        return json.loads(read_text(path, get))
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); get it again with `{get}`") from error


def cell(row: Mapping[str, Any], column: str) -> Any:
    """A value by its dotted column; None where there is none."""
    value: Any = row
    if column in row:
        return row[column]
    for key in column.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def checked(rows: list[dict[str, Any]], columns: Sequence[str], path: Path) -> list[dict[str, Any]]:
    """The rows. Raises DataError naming each missing column, else each empty cell."""
    missing = [
        column for column in columns if rows and not any(column in row or column.split(".")[0] in row for row in rows)
    ]
    if missing:
        names = ", ".join(str(key) for key in rows[0] if key is not None) or "none"
        words = ", ".join(repr(column) for column in missing)
        raise DataError(f"{path}: no column {words}; it has {names}; is this the right file?")
    problems = [
        f"{path}, record {number}: {column} is empty"
        for number, row in enumerate(rows, start=1)
        for column in columns
        if _empty(cell(row, column))
    ]
    if problems:
        raise DataError(problems)
    return rows


def raise_all(problems: Iterable[str]) -> None:
    """Raises DataError when there are any."""
    problems = list(problems)
    if problems:
        raise DataError(problems)


def require(path: Path, get: str) -> None:
    """Raises MissingDataError, with how to get the file, when it is not there."""
    if not path.is_file():
        raise MissingDataError(f"{path}: no such file; get it with `{get}`, or correct the path")


def read_text(path: Path, get: str) -> str:
    """Raises DataError when the file is missing or not UTF-8."""
    require(path, get)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error}); get it again with `{get}`") from error


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _json(path: Path, get: str) -> list[dict[str, Any]]:
    content = read_json(path, get)
    if isinstance(content, dict):
        content = [{KEY: key, **row} if isinstance(row, dict) else row for key, row in content.items()]
    return _objects(content, path)


def _json_lines(path: Path, get: str) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(read_text(path, get).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise DataError(f"{path}, line {number}: not JSON ({error}); get it again with `{get}`") from error
    return _objects(rows, path)


def _objects(rows: Any, path: Path) -> list[dict[str, Any]]:
    if not isinstance(rows, list):
        raise DataError(f"{path}: holds {type(rows).__name__}, not a list of records; is this the right file?")
    raise_all(
        f"{path}, record {number}: is {type(row).__name__}, not an object"
        for number, row in enumerate(rows, start=1)
        if not isinstance(row, dict)
    )
    return rows


def _parquet(path: Path) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: not a readable parquet file ({error}); fetch it again") from error
    return rows
