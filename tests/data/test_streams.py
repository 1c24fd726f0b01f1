"""Streams of records: as the library parses them, resumed anywhere, broken ones told, in bounded memory."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.large_files import record, written
from vlsafe.data.index import streams
from vlsafe.data.index.streams import ArrayStream, LineStream, open_stream
from vlsafe.data.problems import Malformed
from vlsafe.data.sources import open_source
from vlsafe.data.sources.rows import read_rows
from vlsafe.errors import DataError

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


def stream(data: bytes, chunk: int, position: int = 0, index: int = 0) -> ArrayStream:
    file = io.BytesIO(data)
    file.seek(position)
    return ArrayStream(file, Path("file.json"), position, index, chunk)


@settings(deadline=None)
@given(st.lists(JSON, max_size=6), st.integers(1, 9), st.booleans(), st.sampled_from([None, 1]))
def test_an_array_streams_as_it_parses_with_any_buffer(rows: list, chunk: int, ascii_only: bool, indent: Any) -> None:
    data = b"\xef\xbb\xbf" + json.dumps(rows, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "replace")
    expected = json.loads(data)
    found = list(stream(data, chunk))
    assert [row for row, _ in found] == expected
    assert [json.loads(raw) for _, raw in found] == expected


@settings(deadline=None)
@given(st.lists(JSON, min_size=1, max_size=5), st.integers(1, 9), st.data())
def test_a_stream_goes_on_where_another_stopped(rows: list, chunk: int, data: st.DataObject) -> None:
    text = json.dumps(rows, ensure_ascii=False).encode("utf-8", "replace")
    first = stream(text, chunk)
    reading = iter(first)
    seen = [next(reading)[0] for _ in range(data.draw(st.integers(1, len(rows))))]
    rest = [row for row, _ in stream(text, chunk, first.position(), len(seen))]
    assert seen + rest == json.loads(text)


@settings(deadline=None)
@given(st.binary(max_size=40) | st.text('[]{},:"\\ 1ae', max_size=30).map(str.encode), st.integers(1, 5))
def test_any_bytes_parse_as_the_library_parses_them_or_raise_a_data_error(data: bytes, chunk: int) -> None:
    try:
        expected = json.loads(data.strip(streams.BLANK).decode())
    except ValueError:
        expected = None
    try:
        found = [row for row, _ in stream(data, chunk)]
    except DataError as error:
        assert not isinstance(expected, list)
        assert "file.json[" in str(error) and "not valid JSON" in str(error)
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'[{"a": 1}, {"b": ', r"file\.json\[1\]: not valid JSON"),
        (b"[1, 2", r"file\.json\[2\].*the file ends before its array"),
        (b"[1] 2", r"something follows the end of the array"),
        (b"[1 2]", r"file\.json\[1\].*expected ',', found '2'"),
        (b"[1,]", r"file\.json\[1\]: not valid JSON"),
        (b'["\xff"]', r"file\.json\[0\].*utf-8"),
        (b"[" * 100_000, r"file\.json\[0\]: not valid JSON"),
    ],
)
def test_a_broken_array_names_the_record(data: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        list(stream(data, 7))


def test_a_record_without_an_end_is_refused_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_RECORD", 1000)
    endless = io.BytesIO(b'["' + b"a" * 10_000_000)
    with pytest.raises(DataError, match=r"file\.json\[0\]: not valid JSON \(Unterminated"):
        list(ArrayStream(endless, Path("file.json"), chunk=64))
    assert endless.tell() < 5000
    lines = io.BytesIO(b'"' + b"a" * 5000 + b'"\n2\n')
    assert [row for row, _ in LineStream(lines, Path("x"))] == [Malformed("the line is longer than 1,000 bytes"), 2]


@pytest.mark.parametrize("suffix", ["json", "jsonl", "json.gz", "jsonl.gz", "parquet"])
def test_every_form_streams_reads_and_goes_on_alike(tmp_path: Path, suffix: str) -> None:
    rows = [record(number) for number in range(600)]
    path = written(tmp_path / f"file.{suffix}", rows)
    assert list(read_rows(path)) == [row for row, _ in open_stream(path)] == rows
    for stop in (1, 300, 600):
        first = open_stream(path)
        reading = iter(first)
        seen = [next(reading)[0] for _ in range(stop)]
        rest = [row for row, _ in open_stream(path, first.position(), stop)]
        assert seen + rest == rows


def test_parquet_with_binary_columns_points_to_the_kind_that_reads_it(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "image": [b"png"]}), tmp_path / "file.parquet")
    with pytest.raises(DataError, match=r"file\.parquet\[0\]: holds binary data.*source kind 'hub'"):
        open_source(f"alpaca:{tmp_path / 'file.parquet'}")
