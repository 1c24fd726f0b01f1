"""The records that stay and those that go, in the form of the file that they come from."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlsafe.data.index.streams import GZIP_MAGIC, PARQUET_MAGIC, is_array, open_stream, reading

Goes = Callable[[int], bool]
"""Number of a record -> whether it is removed."""


def split_file(path: Path, out: Path, goes: Goes) -> tuple[Path, Path]:
    """Write ``clean`` and ``removed`` with the suffix of ``path``; returns their paths.

    JSON records keep their bytes, Parquet its schema. Both files appear whole or not at all. Raises DataError when
    ``path`` cannot be read.
    """
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    clean, removed = out / f"clean{suffix}", out / f"removed{suffix}"
    with reading(path), path.open("rb") as file:
        head = file.read(4096)
    with _whole(clean) as kept, _whole(removed) as gone:
        if head.startswith(PARQUET_MAGIC):
            _split_parquet(path, kept, gone, goes)
        else:
            _split_json(path, kept, gone, goes, head.startswith(GZIP_MAGIC))
    return clean, removed


def _split_json(path: Path, kept: Path, gone: Path, goes: Goes, packed: bool) -> None:
    opener: Any = gzip.open if packed else open
    with reading(path), opener(path, "rb") as file:
        array = is_array(file.read(4096))
    opening, between, closing = (b"[\n", b",\n", b"\n]\n") if array else (b"", b"\n", b"\n")
    with ExitStack() as stack:
        files: list[IO[bytes]] = [stack.enter_context(opener(target, "wb")) for target in (kept, gone)]
        counts = [0, 0]
        for number, (_, raw) in enumerate(open_stream(path)):
            which = int(goes(number))
            files[which].write((between if counts[which] else opening) + raw.strip())
            counts[which] += 1
        for file, count in zip(files, counts, strict=True):
            file.write(closing if count else (opening + closing).strip(b"\n") + b"\n" if array else b"")


def _split_parquet(path: Path, kept: Path, gone: Path, goes: Goes) -> None:
    table = pq.ParquetFile(path)
    with pq.ParquetWriter(kept, table.schema_arrow) as stay, pq.ParquetWriter(gone, table.schema_arrow) as leave:
        number = 0
        for batch in table.iter_batches():
            mask = pa.array([goes(number + row) for row in range(len(batch))], pa.bool_())
            number += len(batch)
            leave.write_batch(batch.filter(mask))
            stay.write_batch(batch.filter(pc.invert(mask)))


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
