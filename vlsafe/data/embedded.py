"""Pictures kept as bytes in an Arrow file, as Hugging Face data sets keep them: read by memory map, one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from vlsafe.errors import DataError

ARROW_STREAM = b"\xff\xff\xff\xff"
"""How the Arrow files of the library ``datasets`` begin."""


def is_arrow(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == ARROW_STREAM


def read_table(path: Path) -> pa.Table:
    """The columns of an Arrow stream, mapped, not read. Raises DataError when it cannot be."""
    try:
        return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {path}: {error}; fetch the data set again") from error


class ArrowPictures:
    """The pictures of an Arrow file. A picture's name is ``<row>/<place>/<column>``."""

    def __init__(self, path: Path) -> None:
        self._table = read_table(path)

    def read(self, name: str) -> bytes:
        """Raises KeyError when there is no such picture, or when the row holds only its path."""
        row, place, column = name.split("/", 2)
        if column not in self._table.column_names or not 0 <= int(row) < self._table.num_rows:
            raise KeyError(name)
        value = self._table.column(column)[int(row)].as_py()
        picture: Any = dict(enumerate(value if isinstance(value, list) else [value])).get(int(place))
        data = picture.get("bytes") if isinstance(picture, dict) else picture
        if not isinstance(data, bytes):
            raise KeyError(name)
        return data
