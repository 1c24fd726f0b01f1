"""The index's form on the disk: Arrow files of some thousand records each, read by memory map."""

from __future__ import annotations

import bisect
import json
import os
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa

SCHEMA = pa.schema([("number", pa.int64()), ("id", pa.string()), ("row", pa.large_binary())])
"""``number``: the record's place in its file; ``id``: unique in the index; ``row``: its JSON."""

ROWS, BYTES = 8192, 32 * 2**20
"""A shard is written when it holds this many records or bytes, whichever comes first."""


class ShardWriter:
    """Collects records and writes whole shards; each is complete on the disk under its name, or not there."""

    def __init__(self, folder: Path, written: int) -> None:
        self.folder = folder
        self._written = written
        self._clear()

    def add(self, number: int, identity: str, raw: bytes) -> None:
        self._numbers.append(number)
        self._ids.append(identity)
        self._rows.append(raw)
        self._bytes += len(raw)

    @property
    def full(self) -> bool:
        return len(self._rows) >= ROWS or self._bytes >= BYTES

    def flush(self, state: dict[str, Any]) -> None:
        """Write the shard with ``state``, which :func:`last_state` gives back."""
        columns = [pa.array(values, kind) for values, kind in zip(self._columns, SCHEMA.types, strict=True)]
        schema = SCHEMA.with_metadata({"state": json.dumps(state)})
        path = self.folder / f"shard-{self._written:05d}.arrow"
        partial = path.with_suffix(".partial")
        with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(pa.record_batch(columns, schema=schema))
        os.replace(partial, path)
        self._written += 1
        self._clear()

    def _clear(self) -> None:
        self._numbers: list[int] = []
        self._ids: list[str] = []
        self._rows: list[bytes] = []
        self._bytes = 0

    @property
    def _columns(self) -> tuple[list[int], list[str], list[bytes]]:
        return self._numbers, self._ids, self._rows


class IndexedRows(Sequence[tuple[int, str, Any]]):
    """``(number, id, row)`` of every record of an index. Pickles as its folder's name, so workers map it themselves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shards = [_mapped(path).columns for path in shard_files(folder)]
        self._ends = list(accumulate(len(numbers) for numbers, _, _ in self._shards))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: Any) -> Any:
        index = range(len(self))[index]
        shard = bisect.bisect_right(self._ends, index)
        place = index - (self._ends[shard - 1] if shard else 0)
        number, identity, row = (column[place].as_py() for column in self._shards[shard])
        return number, identity, json.loads(row)

    def ids(self) -> Iterator[str]:
        return (identity for _, ids, _ in self._shards for identity in ids.to_pylist())

    def __reduce__(self) -> tuple[type[IndexedRows], tuple[Path]]:
        return IndexedRows, (self.folder,)


def shard_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("shard-*.arrow"))


def last_state(folder: Path) -> dict[str, Any]:
    """The state that the last whole shard was written with; empty without one."""
    files = shard_files(folder)
    return json.loads(_mapped(files[-1]).schema.metadata[b"state"]) if files else {}


def _mapped(path: Path) -> pa.RecordBatch:
    return pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
