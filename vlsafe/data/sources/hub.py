"""Any Hugging Face data set by column mapping: from the hub, saved to disk, or as Parquet; pictures stay inside it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlsafe.conversation import Conversation, ImageRef
from vlsafe.data.embedded import read_table
from vlsafe.data.index.streams import rows_of
from vlsafe.data.problems import BadRecords, Policy, UniqueIds
from vlsafe.data.sources.base import Source, convert_all
from vlsafe.data.sources.fields import Fields
from vlsafe.data.sources.messages import checked_columns, conversation_of
from vlsafe.errors import DataError
from vlsafe.fetch.paths import cache_directory


class HubSource(Source):
    """Rows of the library ``datasets`` as Conversations, in the forms of :class:`MessagesSource`.

    ``path`` is a folder written by ``save_to_disk``, a Parquet file, a folder of them (``<split>-*.parquet`` where
    there are such), or else the name of a data set on the hub. Pictures are bytes in the column that ``images`` is
    mapped to (one, or a list), and are read out of the mapped file when a worker needs them; they are decoded by then
    and not before.

    Args:
        columns: ``{messages, images, id, system, question, answer}`` -> the column that holds it.
        tags: columns to keep as tags.
        revision: commit of a data set on the hub.

    Raises:
        DataError: no such data set, split or column, or with all malformed records.
        ConfigError: a wrong mapping.
    """

    def __init__(
        self,
        path: Path | str,
        split: str = "train",
        columns: dict[str, str] | None = None,
        tags: list[str] | None = None,
        revision: str | None = None,
        name: str = "hub",
        on_bad_record: Policy = "error",
    ) -> None:
        self.name = name
        self._columns = checked_columns(columns)
        self._tags = tags or []
        self._files = _arrow_files(Path(path), split, revision)
        self._map()
        self._check(Path(path))
        bad, ids = BadRecords(Path(path), on_bad_record), UniqueIds(Path(path))
        rows = convert_all(self._rows(), self._convert, bad)
        kept = [(number, ids.unique(conversation.id)) for number, conversation in rows]
        ids.report()
        bad.done()
        self.skipped = bad.count
        self._kept = np.array([number for number, _ in kept], dtype=np.int64)
        self._ids = [identity for _, identity in kept]
        if not kept:
            raise DataError(f"{path}#{split} holds no records")

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Conversation:
        number = int(self._kept[index])
        file, place = self._place(number)
        (row,) = self._texts[file].slice(place, 1).to_pylist()
        conversation = self._convert(row, number)
        return Conversation(self._ids[index], self.name, conversation.turns, conversation.tags)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in ("_texts", "_pictures", "_lacking")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._map()  # another process maps the files itself

    def _map(self) -> None:
        tables = [read_table(file) for file in self._files]
        self._ends = list(accumulate(table.num_rows for table in tables))
        column = self._columns["images"]
        self._texts = [table.drop([column]) if column in table.column_names else table for table in tables]
        self._pictures = [_counts(table, column) for table in tables]
        self._lacking = [_rows_without_bytes(table, column) for table in tables]

    def _check(self, path: Path) -> None:
        """Arrow believes what a file says of itself: a damaged one would end the process, not raise."""
        for file, texts in zip(self._files, self._texts, strict=True):
            try:
                texts.validate(full=True)
                self._check_pictures(read_table(file))
            except pa.ArrowInvalid as error:
                raise DataError(f"{path}: {file} is damaged: {error}; fetch the data set again") from error

    def _check_pictures(self, table: pa.Table) -> None:
        column = self._columns["images"]
        if column not in table.column_names:
            return
        kind = table.schema.field(column).type
        kind = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
        held = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
        if not (pa.types.is_binary(held) or pa.types.is_large_binary(held) or pa.types.is_null(held)):
            raise DataError(
                f"the column {column!r} of {self.name} holds {kind}, not pictures; map `images` to the column that "
                "holds them, or to none"
            )
        table.column(column).validate(full=True)

    def _rows(self) -> Iterator[Any]:
        for table in self._texts:
            for batch in table.to_batches(max_chunksize=256):
                yield from rows_of(batch)

    def _place(self, number: int) -> tuple[int, int]:
        file = int(np.searchsorted(self._ends, number, side="right"))
        return file, number - (self._ends[file - 1] if file else 0)

    def _convert(self, row: Any, number: int) -> Conversation:
        file, place = self._place(number)
        column, root = self._columns["images"], self._files[file]
        pictures = [ImageRef(root, f"{place}/{n}/{column}") for n in range(self._pictures[file][place])]
        fields = Fields(row)
        if place in self._lacking[file]:
            fields.note(
                f"a picture in {column!r} has no bytes, at most a path; save the data set with its pictures inside"
            )
        return conversation_of(fields, number, self.name, self._columns, self._tags, pictures)


def _counts(table: pa.Table, column: str) -> np.ndarray:
    """Pictures of each row."""
    if column not in table.column_names:
        return np.zeros(table.num_rows, dtype=np.int64)
    values = table.column(column)
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        return pc.fill_null(pc.list_value_length(values), 0).to_numpy().astype(np.int64)
    return values.is_valid().to_numpy().astype(np.int64)


def _rows_without_bytes(table: pa.Table, column: str) -> set[int]:
    """The rows that name a picture and do not hold it."""
    rows: set[int] = set()
    start = 0
    for chunk in table.column(column).chunks if column in table.column_names else []:
        several = pa.types.is_list(chunk.type) or pa.types.is_large_list(chunk.type)
        pictures = chunk.flatten() if several else chunk
        owners = pc.list_parent_indices(chunk) if several else pa.array(range(len(chunk)))
        if pa.types.is_struct(pictures.type) and pictures.type.get_field_index("bytes") >= 0:
            named = pc.and_(pictures.is_valid(), pc.struct_field(pictures, "bytes").is_null())
            rows.update(start + owner for owner in owners.filter(named).to_pylist())
        start += len(chunk)
    return rows


def _arrow_files(path: Path, split: str, revision: str | None) -> list[Path]:
    """The Arrow files that hold the split, made in the cache directory where it comes in another form."""
    import datasets

    try:
        if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
            opened = datasets.load_from_disk(str(path))
            opened = opened[split] if isinstance(opened, datasets.DatasetDict) else opened
        else:
            cache = str(cache_directory() / "datasets")
            if path.exists():
                files = {split: [str(file) for file in _parquet_files(path, split)]}
                opened = datasets.load_dataset("parquet", data_files=files, split=split, cache_dir=cache)
            else:
                opened = datasets.load_dataset(str(path), split=split, revision=revision, cache_dir=cache)
    except DataError:
        raise
    except Exception as error:  # the library raises errors of its own, of pyarrow, of the hub and of the network
        what = f"data set {path}, split {split!r}"
        raise DataError(
            f"cannot open {what}: {error}; correct its name, or fetch it where there is a network"
        ) from error
    return [Path(file["filename"]) for file in opened.cache_files]


def _parquet_files(path: Path, split: str) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted(path.rglob("*.parquet"))
    named = [file for file in files if file.name.startswith((f"{split}-", f"{split}.")) or file.parent.name == split]
    if not (named or files):
        raise DataError(f"{path} holds neither a saved data set nor Parquet files")
    return named or files
