"""Building an index, once for a file's content and a way of reading it, and finding it again.

Layout in the cache directory: ``index/files/<path>.json`` says which content a path held when it was last looked at
(size, time and sha256: as long as the first two are as they were, nothing is read again); ``index/<content>-<reader>/``
holds the shards, and ``done.json`` once all are there. A build that was killed goes on after its last whole shard.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from vlsafe.conversation import Conversation
from vlsafe.data.index.shards import IndexedRows, ShardWriter, last_state, shard_files
from vlsafe.data.index.streams import GZIP_MAGIC, PARQUET_MAGIC, open_stream, unpacks_to
from vlsafe.data.problems import BadRecord, BadRecords, LeftOut, UniqueIds, refuse_malformed
from vlsafe.errors import DataError
from vlsafe.fetch.paths import cache_directory

LARGE = 64 * 2**20
"""Bytes from which a file is indexed instead of held in memory; compressed forms count eightfold."""

VERSION = 2
"""Of the layout: raised when older indexes can no longer be read."""

Convert = Callable[[Any, int], Conversation]


def is_large(path: Path) -> bool:
    """Whether the file is to be indexed; False where there is no such file. A small gzip file may unpack to a huge one,
    so it is unpacked as far as that takes."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(4)
    if path.stat().st_size * (8 if head.startswith((GZIP_MAGIC, PARQUET_MAGIC)) else 1) >= LARGE:
        return True
    return head.startswith(GZIP_MAGIC) and unpacks_to(path, LARGE)


def open_index(path: Path, reader: str, convert: Convert, bad: BadRecords) -> tuple[IndexedRows, bool]:
    """The index of ``path`` as ``reader`` (what decides the outcome of ``convert``, in words) reads it; whether every
    record was converted just now. Malformed records, and changed ones, are noted in ``bad``; where the former stop the
    run, the index is not complete.

    Raises DataError when the file cannot be read.
    """
    root = cache_directory() / "index"
    reader_key = hashlib.sha256(f"{VERSION}\n{bad.policy}\n{reader}".encode()).hexdigest()[:16]
    folder = root / f"{content_hash(path)[:16]}-{reader_key}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        whole = not (folder / "done.json").exists()
        if whole:
            whole = not shard_files(folder)
            _build(path, folder, convert, bad)
            if not bad.stops:
                _write_json(folder / "done.json", {"path": str(path), **_noted(bad)})
        else:
            done = json.loads((folder / "done.json").read_text(encoding="utf-8"))
            bad.restore(done["bad"], done["more"])
            bad.changes.restore(done["changes"])
    return IndexedRows(folder), whole


def content_hash(path: Path) -> str:
    """sha256 of the file, read only when its size or time of change is not what it was at the last look."""
    path = path.resolve()
    known = cache_directory() / "index" / "files" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.json"
    stat = path.stat()
    facts = {"path": str(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    if known.exists():
        noted = json.loads(known.read_text(encoding="utf-8"))
        if {key: noted.get(key) for key in facts} == facts:
            return noted["sha256"]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _write_json(known, facts | {"sha256": digest})
    return digest


def _noted(bad: BadRecords) -> dict[str, Any]:
    return {"bad": bad.lines, "more": bad.count - len(bad.lines), "changes": bad.changes.state()}


def _build(path: Path, folder: Path, convert: Convert, bad: BadRecords) -> None:
    state = last_state(folder)
    if state:
        bad.restore(state["bad"], state["more"])
        bad.changes.restore(state["changes"])
    ids = UniqueIds(path, IndexedRows(folder).ids())
    writer = ShardWriter(folder, len(shard_files(folder)))
    number = state.get("records", 0)
    stream = open_stream(path, state.get("position", 0), number)

    def flush() -> None:
        writer.flush({"records": number, "position": stream.position(), **_noted(bad)})

    try:
        for row, raw in stream:
            try:
                conversation = convert(refuse_malformed(row), number)
            except LeftOut as error:
                bad.changes.add(number, row, error.reasons)
            except BadRecord as error:
                bad.add(number, row, error.reasons)
            else:
                bad.changes.add(number, row, conversation.changes)
                writer.add(number, ids.unique(conversation.id), raw)
            number += 1
            if writer.full:
                flush()
    except DataError as error:
        raise bad.together_with(error) from error
    if number == 0:
        raise DataError(f"{path} holds no records; expected a JSON array or one JSON object a line")
    if bad.stops:
        return
    flush()
    ids.report()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(content), encoding="utf-8")
    os.replace(partial, path)
