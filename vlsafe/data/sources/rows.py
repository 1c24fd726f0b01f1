"""Reading a file of records that fits in memory: a JSON array, JSON Lines, either of them with gzip, or Parquet."""

from __future__ import annotations

import gzip
import io
import json
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vlsafe.data.index.streams import (
    BLANK,
    GZIP_MAGIC,
    MAX_RECORD,
    PARQUET_MAGIC,
    LineStream,
    ParquetStream,
    is_array,
    parse_line,
    reading,
)
from vlsafe.data.problems import refuse_malformed
from vlsafe.errors import DataError

MOST = 2**28
"""Bytes that are read into memory at once, unpacked; a compressed file may claim to be small."""


def read_rows(path: Path) -> Sequence[Any]:
    """The records of ``path`` in order, with random access. What the file holds is told from its content.

    Plain JSON Lines stay on the disk and are read record by record; the other forms are held in memory. A line or row
    that cannot be parsed gives :class:`Malformed` in its place. Raises DataError when the file is missing, unreadable,
    not a JSON array where it begins like one, or without records.
    """
    with reading(path):
        with path.open("rb") as file:
            head = file.read(4096)
        if head.startswith(PARQUET_MAGIC):
            rows: Sequence[Any] = list(_bounded_rows(ParquetStream(path), path))
        elif head.startswith(GZIP_MAGIC):
            with gzip.open(path) as packed:
                data = _bounded(packed.read(MOST + 1), path)
            rows = _array(data, path) if is_array(data[:4096]) else _lines(data, path)
        elif is_array(head):
            with path.open("rb") as file:
                rows = _array(_bounded(file.read(MOST + 1), path), path)
        else:
            rows = JsonLines(path)
    if len(rows) == 0:
        raise DataError(f"{path} holds no records; expected a JSON array or one JSON object a line")
    return rows


class JsonLines(Sequence[Any]):
    """JSON Lines by byte offset: 8 bytes of memory a record. Holds no open file, so it may be forked or pickled."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offsets = array("Q")
        position = 0
        with path.open("rb") as file:
            while line := file.readline(MAX_RECORD):  # a line without an end must not fill the memory
                if line.strip(BLANK):
                    self._offsets.append(position)
                position += len(line)
                while not line.endswith(b"\n") and (line := file.readline(MAX_RECORD)):
                    position += len(line)

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: Any) -> Any:
        with self.path.open("rb") as file:
            file.seek(self._offsets[index])
            return refuse_malformed(parse_line(file.readline(MAX_RECORD + 1)))

    def __iter__(self) -> Iterator[Any]:
        """In order, in one pass over the file."""
        return (row for row, _ in LineStream(self.path.open("rb"), self.path))


def _lines(data: bytes, path: Path) -> list[Any]:
    return [row for row, _ in LineStream(io.BytesIO(data), path)]


def _array(data: bytes, path: Path) -> Any:
    try:
        return json.loads(data.strip(BLANK))
    except (ValueError, RecursionError) as error:  # ValueError: not JSON, not UTF-8, or a number of absurd length
        raise DataError(
            f"{path}: not valid JSON ({error or 'nested too deeply'}); "
            "expected a JSON array, or one whole JSON object a line; mend the file or fetch it again"
        ) from error


def _bounded(data: bytes, path: Path) -> bytes:
    if len(data) > MOST:
        raise _too_large(path)
    return data


def _bounded_rows(stream: ParquetStream, path: Path) -> Iterator[Any]:
    size = 0
    for row, raw in stream:
        size += len(raw)
        if size > MOST:
            raise _too_large(path)
        yield row


def _too_large(path: Path) -> DataError:
    return DataError(f"{path} is more than {MOST:,} bytes unpacked, too large to be held in memory; split it")
