"""Files of records in every form that is streamed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def record(number: int, **fields: Any) -> dict[str, Any]:
    turns = [{"from": "human", "value": f"Größe {number}?"}, {"from": "gpt", "value": f"{number} cm"}]
    return {"id": f"r{number}", "conversations": turns} | fields


def written(path: Path, rows: list[Any]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=250)
        return path
    array = "jsonl" not in path.name
    data = (json.dumps(rows) if array else "\n".join(map(json.dumps, rows))).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path
