"""Records of a file one after the other, in memory that does not grow with the file.

Every stream yields ``(row, raw)``: the parsed record and its JSON as bytes. :meth:`Stream.position` tells where the
next record begins, so that an interrupted reader can go on there.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from vlsafe.data.problems import Malformed
from vlsafe.errors import DataError

CHUNK = 2**20
MAX_RECORD = 64 * 2**20
"""Bytes or characters of the longest record that is read; a longer one is refused, whatever memory there is."""

GZIP_MAGIC, PARQUET_MAGIC = b"\x1f\x8b", b"PAR1"
BLANK = b"\xef\xbb\xbf \t\r\n"  # white space and the byte-order mark that some editors write
_SOLID = re.compile(f"[^{BLANK.decode()}]")
_DECODER = json.JSONDecoder()


class Stream(ABC):
    @abstractmethod
    def __iter__(self) -> Iterator[tuple[Any, bytes]]:
        """Raises DataError where the file cannot be read on, naming the record."""

    @abstractmethod
    def position(self) -> int:
        """Where the next record begins: a byte of the unpacked text, or a row of a Parquet file."""


def open_stream(path: Path, position: int = 0, index: int = 0) -> Stream:
    """The records of ``path`` from ``position`` on, the first of which has the number ``index``.

    A JSON array, JSON Lines, either of them compressed with gzip, or Parquet: told from the content. Raises DataError
    when the file is missing or unreadable.
    """
    with reading(path), path.open("rb") as opened:
        head = opened.read(4096)
    if head.startswith(PARQUET_MAGIC):
        return ParquetStream(path, position)
    with reading(path):
        packed = head.startswith(GZIP_MAGIC)
        file = cast(BinaryIO, gzip.GzipFile(path) if packed else path.open("rb"))
        array = is_array(file.read(4096) if packed else head)
        file.seek(position)
    return ArrayStream(file, path, position, index) if array else LineStream(file, path, position, index)


def is_array(head: bytes) -> bool:
    return head.lstrip(BLANK).startswith(b"[")


def unpacks_to(path: Path, size: int) -> bool:
    """Whether a gzip file holds at least ``size`` bytes; of a broken one, as far as it can be unpacked."""
    unpacked = 0
    try:
        with gzip.open(path) as file:
            while unpacked < size and (chunk := file.read(CHUNK)):
                unpacked += len(chunk)
    except (OSError, EOFError, zlib.error):
        pass  # whoever reads the file says so
    return unpacked >= size


class reading:
    """Turns what reading a file may raise into a DataError that names the file and the remedy."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise DataError(f"missing file {self.path}; fetch the data, or correct the path of the source") from error
        if isinstance(error, OSError | EOFError | UnicodeDecodeError | zlib.error | pa.ArrowException):
            raise DataError(f"cannot read {self.path}: {error}; fetch the file again, or correct the path") from error


class ArrayStream(Stream):
    """The elements of a JSON array. A buffer of text grows until the next element is whole in it.

    ``position`` > 0 stands right after an element, before the comma that follows it.
    """

    def __init__(self, file: BinaryIO, path: Path, position: int = 0, index: int = 0, chunk: int = CHUNK) -> None:
        self._file, self._path, self._chunk = file, path, chunk
        self._read, self._index, self._started = position, index, position > 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text, self._at, self._ended = "", 0, False

    def position(self) -> int:
        unread = len(self._text[self._at :].encode()) + len(self._decoder.getstate()[0])
        return self._read - unread

    def __iter__(self) -> Iterator[tuple[Any, bytes]]:
        if not self._started:
            self._take("[")
            if self._next() == "]":
                return self._close()
            yield self._element()
        while self._next() != "]":
            self._take(",")
            yield self._element()
        self._close()

    def _element(self) -> tuple[Any, bytes]:
        self._next()
        size = self._chunk
        while True:
            why = "it is longer than any record may be"
            try:
                row, end = _DECODER.raw_decode(self._text, self._at)
                if end + 3 <= len(self._text) or self._ended:  # "1" at the buffer's end may become "1.5" or "1e+5"
                    break
            except (ValueError, RecursionError) as error:
                why = str(error) or "nested too deeply"
                if self._ended or isinstance(error, RecursionError):
                    raise self._broken(why) from error
            if len(self._text) - self._at > MAX_RECORD:
                raise self._broken(why)
            self._more(size)
            size *= 2
        raw = self._text[self._at : end].encode()
        self._at = end
        self._index += 1
        return row, raw

    def _next(self) -> str:
        """The next character that is not blank; an empty string at the end."""
        while True:
            solid = _SOLID.search(self._text, self._at)
            self._at = solid.start() if solid else len(self._text)
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more(self._chunk)

    def _take(self, wanted: str) -> None:
        found = self._next()
        if found != wanted:
            raise self._broken(f"expected {wanted!r}, found {found!r}" if found else "the file ends before its array")
        self._at += 1

    def _close(self) -> None:
        self._take("]")
        if self._next():
            raise self._broken("something follows the end of the array")
        self._file.close()

    def _more(self, size: int) -> None:
        with reading(self._path):
            data = self._file.read(size)
        self._ended = not data
        try:
            text = self._decoder.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            raise self._broken(str(error)) from error
        self._read += len(data)
        self._text, self._at = self._text[self._at :] + text, 0

    def _broken(self, why: str) -> DataError:
        return DataError(
            f"{self._path}[{self._index}]: not valid JSON ({why}); expected a JSON array, or one whole JSON object a "
            "line; mend the file or fetch it again"
        )


class LineStream(Stream):
    """The lines of a JSON Lines file; a line that is not JSON gives Malformed, since the next can still be read."""

    def __init__(self, file: BinaryIO, path: Path, position: int = 0, index: int = 0) -> None:
        self._file, self._path, self._position = file, path, position

    def position(self) -> int:
        return self._position

    def __iter__(self) -> Iterator[tuple[Any, bytes]]:
        while line := self._line(MAX_RECORD + 1):
            if len(line) > MAX_RECORD:
                while (rest := self._line(CHUNK)) and not rest.endswith(b"\n"):
                    pass
                yield Malformed(f"the line is longer than {MAX_RECORD:,} bytes"), b"null"
            elif line.strip(BLANK):
                yield parse_line(line), line.strip(BLANK)
        self._file.close()

    def _line(self, most: int) -> bytes:
        with reading(self._path):
            line = self._file.readline(most)
        self._position += len(line)
        return line


def parse_line(line: bytes) -> Any:
    try:
        return json.loads(line.strip(BLANK))
    except (ValueError, RecursionError) as error:  # ValueError: not JSON, not UTF-8, or a number of absurd length
        why = str(error) or "nested too deeply"
        return Malformed(
            f"not valid JSON ({why}); expected one whole JSON object a line; mend the file or fetch it again"
        )


class ParquetStream(Stream):
    """The rows of a Parquet file. Rows with binary columns are Malformed: only the source kind ``hub`` reads those."""

    def __init__(self, path: Path, position: int = 0) -> None:
        self._path, self._position = path, position

    def position(self) -> int:
        return self._position

    def __iter__(self) -> Iterator[tuple[Any, bytes]]:
        with reading(self._path):
            file = pq.ParquetFile(self._path, memory_map=True)
            before = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if before + rows > self._position:
                    yield from self._group(file, group, self._position - before)
                before += rows

    def _group(self, file: Any, group: int, skip: int) -> Iterator[tuple[Any, bytes]]:
        for batch in file.iter_batches(batch_size=256, row_groups=[group]):
            if skip >= len(batch):
                skip -= len(batch)
                continue
            for row in rows_of(batch.slice(skip)):
                self._position += 1
                yield _as_json(row)
            skip = 0


def rows_of(batch: pa.RecordBatch) -> Iterator[Any]:
    """The rows of a batch as objects; Malformed for one whose values cannot be read (text that is not UTF-8,
    dates beyond the calendar)."""
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):
        for place in range(len(batch)):
            yield _row_of(batch.slice(place, 1))


def _row_of(batch: pa.RecordBatch) -> Any:
    try:
        return batch.to_pylist()[0]
    except (ValueError, OverflowError, pa.ArrowException) as error:
        return Malformed(f"a column holds what cannot be read ({error}); mend the file")


def _as_json(row: Any) -> tuple[Any, bytes]:
    if isinstance(row, Malformed):
        return row, b"null"
    try:
        return row, json.dumps(row, default=_plain).encode()
    except TypeError as error:
        return Malformed(str(error)), b"null"


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        raise TypeError("holds binary data, such as embedded pictures; open the file with the source kind 'hub'")
    return str(value)
