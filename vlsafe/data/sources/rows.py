"""Reading a file of records: a JSON array, JSON Lines, or either of them compressed with gzip."""

from __future__ import annotations

import gzip
import json
import zlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vlsafe.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"
BLANK = b"\xef\xbb\xbf \t\r\n"  # white space and the byte-order mark that some editors write


def read_rows(path: Path) -> Sequence[Any]:
    """The records of ``path`` in order, with random access. What the file holds is told from its content.

    Plain JSON Lines stay on the disk and are read record by record; the other forms are held in memory.
    Raises DataError when the file is missing, unreadable, not JSON or without records.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4096)
        if head.startswith(GZIP_MAGIC):
            data = gzip.decompress(path.read_bytes())
            rows = _parse(data, str(path)) if _is_array(data[:4096]) else _parse_lines(data, path)
        elif _is_array(head):
            rows = _parse(path.read_bytes(), str(path))
        else:
            rows = JsonLines(path)
    except FileNotFoundError as error:
        raise DataError(f"missing file {path}; fetch the data, or correct the path of the source") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}; fetch the file again, or correct the path") from error
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
            for line in file:
                if line.strip(BLANK):
                    self._offsets.append(position)
                position += len(line)

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: Any) -> Any:
        with self.path.open("rb") as file:
            file.seek(self._offsets[index])
            return _parse(file.readline(), f"{self.path}[{index}]")

    def __iter__(self) -> Iterator[Any]:
        """In order, in one pass over the file."""
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip(BLANK):
                    yield _parse(line, f"{self.path}, line {number}")


def _is_array(head: bytes) -> bool:
    return head.lstrip(BLANK).startswith(b"[")


def _parse_lines(data: bytes, path: Path) -> list[Any]:
    lines = enumerate(data.split(b"\n"), start=1)
    return [_parse(line, f"{path}, line {number}") for number, line in lines if line.strip(BLANK)]


def _parse(data: bytes, where: str) -> Any:
    try:
        return json.loads(data.strip(BLANK))
    except (ValueError, RecursionError) as error:  # ValueError: not JSON, not UTF-8, or a number of absurd length
        raise DataError(
            f"{where}: not valid JSON ({error or 'nested too deeply'}); "
            "expected a JSON array, or one whole JSON object a line; mend the file or fetch it again"
        ) from error
