"""Damaged, lying and enormous files: what is wrong is said by a DataError, nothing outside a root is read, and memory
stays bounded."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from vlsafe.conversation import ImageRef
from vlsafe.data.images import FORMATS, image_bytes, open_image
from vlsafe.data.index import build, streams
from vlsafe.data.sources import open_source
from vlsafe.errors import DataError
from vlsafe.fetch.paths import use_cache

MIB = 2**20
SECRET = b"what lies beside the root"

few_or_many = pytest.mark.parametrize("examples", [25, pytest.param(1500, marks=pytest.mark.slow)])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path) -> Iterator[None]:
    use_cache(tmp_path / "cache")
    yield
    use_cache(None)


@contextmanager
def memory_below(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak / MIB:.0f} MiB"


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """The content cut short, with some of its bytes overwritten, or both."""
    edits = st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=4)

    def change(edits: list[tuple[int, int]], cut: int) -> bytes:
        data = bytearray(content)
        for place, value in edits:
            data[place] = value
        return bytes(data[:cut])

    return st.builds(change, edits, st.just(len(content)) | st.integers(0, len(content)))


def picture(kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((9, 7)).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


# --- pictures


@few_or_many
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it can still read
def test_a_damaged_picture_opens_or_is_named(tmp_path: Path, kind: str, examples: int) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(damaged(picture(kind)))
    def check(data: bytes) -> None:
        (tmp_path / "a").write_bytes(data)
        try:
            assert open_image(ImageRef(tmp_path, "a")).mode == "RGB"
        except DataError as error:
            assert f"{tmp_path}/a" in str(error)

    check()


# --- zip files

NAMES = st.sampled_from(["a.png", "../secret", "/secret", "in/../../secret", "in/a.png", "a\\b", "in/", "C:secret", ""])


def zipped(names: list[str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in dict.fromkeys(names):
            archive.writestr(name or "x", picture())
    return buffer.getvalue()


@few_or_many
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_zip_file_gives_a_picture_or_is_named(tmp_path: Path, examples: int) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    root = tmp_path / "root"
    root.mkdir()

    @settings(max_examples=examples, deadline=None)
    @given(st.lists(NAMES, min_size=1).map(zipped).flatmap(damaged), NAMES, st.integers(0, 2**60))
    def check(data: bytes, name: str, unique: int) -> None:
        archive = root / f"{unique}.zip"
        archive.write_bytes(data)
        for place in (archive, root):
            try:
                assert image_bytes(ImageRef(place, name)) != SECRET
            except DataError as error:
                assert str(place) in str(error)
        archive.unlink()

    check()


def lying_zip(path: Path, method: int, size: int) -> Path:
    """One entry of ``size`` zeros, which both of its headers claim to be of 100 bytes."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.png", bytes(size))
    data = bytearray(path.read_bytes())
    data[22:26] = data[data.rfind(b"PK\x01\x02") + 24 :][:4] = struct.pack("<I", 100)
    central = data.rfind(b"PK\x01\x02")
    data[central + 24 : central + 28] = struct.pack("<I", 100)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("method", "words"),
    [(zipfile.ZIP_DEFLATED, "cannot read picture"), (zipfile.ZIP_BZIP2, "a method other than deflate; zip the pic")],
)
def test_a_zip_entry_that_unpacks_to_more_than_it_claims_takes_no_memory(
    tmp_path: Path, method: int, words: str
) -> None:
    archive = lying_zip(tmp_path / "a.zip", method, 32 * MIB)
    with memory_below(4 * MIB), pytest.raises(DataError, match=words):
        image_bytes(ImageRef(archive, "a.png"))


# --- records


def alpaca(**fields: Any) -> dict[str, Any]:
    return {"id": "a", "instruction": "Add.", "output": "3"} | fields


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("alpaca", {"instruction": ["x" * 10_000_000], "output": "y"}),
        ("alpaca", {"id": {"x" * 10_000_000: 1}, "history": [[]] * 100_000}),
        ("llava", {"image": "../" + "x" * 10_000_000, "conversations": []}),
        ("llava", {"image": "x" * 10_000_000, "conversations": [{"from": "human", "value": "<image>"}]}),
        ("llava", {"conversations": [{"from": "x" * 10_000_000, "value": "y"}]}),
        ("messages", {"messages": [{"role": "x" * 10_000_000}]}),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "x" * 10_000_000}]}]}),
        ("messages", {"x" * 10_000_000: 1}),
    ],
)
def test_no_message_quotes_megabytes(tmp_path: Path, kind: str, row: dict[str, Any]) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps([row]))
    with pytest.raises(DataError, match=r"file\.json\[0\]") as caught:
        open_source(f"{kind}:{path}")
    assert len(str(caught.value)) < 100_000


@pytest.mark.parametrize("form", ["[%s]", "%s\n"])
def test_deep_nesting_is_a_malformed_record(tmp_path: Path, form: str) -> None:
    path = tmp_path / "file.json"
    for depth in (10, *range(700, 1000, 11), 100_000):
        path.write_text(form % ('{"id": %s, "instruction": 3, "output": "a"}' % ("[" * depth + "]" * depth)))
        with pytest.raises(DataError, match=r"file\.json"):
            open_source(f"alpaca:{path}")


def test_a_small_gzip_file_that_unpacks_to_a_large_one_is_indexed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "LARGE", MIB)
    monkeypatch.setattr(streams, "MAX_RECORD", MIB)
    path = tmp_path / "file.json.gz"
    path.write_bytes(gzip.compress(b"[" + json.dumps(alpaca()).encode() + b" " * 16 * MIB + b"]"))
    assert path.stat().st_size * 8 < MIB
    with memory_below(12 * MIB):
        assert len(open_source(f"alpaca:{path}")) == 1
    path.write_bytes(gzip.compress(b'["' + b"a" * 32 * MIB))
    with memory_below(24 * MIB), pytest.raises(DataError, match=r"file\.json\.gz\[0\]: not valid JSON"):
        open_source(f"alpaca:{path}")


# --- Parquet and Arrow


@few_or_many
def test_a_damaged_parquet_file_opens_or_is_named(tmp_path: Path, examples: int) -> None:
    path = tmp_path / "file.parquet"
    pq.write_table(pa.Table.from_pylist([alpaca(id=f"r{n}") for n in range(5)]), path, compression="none")

    whole = path.read_bytes()

    @settings(max_examples=examples, deadline=None)
    @given(damaged(whole))
    @example(whole.replace(b"instruction", b"\x80nstruction"))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        try:
            assert all(each.turns[-1].text for each in open_source(f"alpaca:{path}"))
        except DataError as error:
            assert str(path) in str(error)

    check()


@few_or_many
def test_a_damaged_arrow_file_opens_or_is_named(tmp_path: Path, examples: int) -> None:
    rows = {
        "question": [f"Is it {n}?" for n in range(4)],
        "answer": ["Yes."] * 4,
        "images": [{"bytes": picture(), "path": None}] * 4,
    }
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "disk")
    (path,) = (tmp_path / "disk").glob("*.arrow")

    @settings(max_examples=examples, deadline=None)
    @given(damaged(path.read_bytes()))
    def check(data: bytes) -> None:
        path.unlink()  # a mapped file must not change under its readers
        path.write_bytes(data)
        try:
            for each in open_source(f"hub:{tmp_path / 'disk'}"):
                assert all(len(image_bytes(image)) >= 0 for image in each.images)
        except DataError as error:
            assert str(tmp_path / "disk") in str(error)

    check()


def not_utf8() -> pa.Array:
    return pa.array([b"fine", b"\xff", b"fine too"]).view(pa.string())


def test_a_parquet_row_that_is_not_text_is_one_malformed_record(tmp_path: Path) -> None:
    pq.write_table(pa.table({"instruction": not_utf8(), "output": ["a", "b", "c"]}), tmp_path / "file.parquet")
    spec = {"kind": "alpaca", "path": str(tmp_path / "file.parquet")}
    with pytest.raises(DataError, match=r"file\.parquet\[1\].*codec can't decode byte 0xff"):
        open_source(spec)
    source = open_source(spec | {"on_bad_record": "skip"})
    assert [each.turns[0].text for each in source] == ["fine", "fine too"] and source.skipped == 1


def test_a_data_set_that_is_not_text_is_damaged(tmp_path: Path) -> None:
    datasets.disable_progress_bars()
    pq.write_table(pa.table({"question": not_utf8(), "answer": ["a", "b", "c"]}), tmp_path / "file.parquet")
    with pytest.raises(DataError, match=r"file\.parquet: .* is damaged: .*Invalid UTF8"):
        open_source(f"hub:{tmp_path / 'file.parquet'}")


@pytest.mark.parametrize("several", [False, True])
def test_a_picture_that_is_only_a_path_is_a_malformed_record(tmp_path: Path, several: bool) -> None:
    pictures: list[Any] = [{"bytes": picture(), "path": None}, {"bytes": None, "path": "a.png"}, None]
    shown = [[one] if one else [] for one in pictures] if several else pictures
    table = pa.table({"question": ["Is it?"] * 3, "answer": ["Yes."] * 3, "images": shown})
    datasets.disable_progress_bars()
    pq.write_table(table, tmp_path / "file.parquet")
    spec = {"kind": "hub", "path": str(tmp_path / "file.parquet")}
    with pytest.raises(DataError, match=r"file\.parquet\[1\]: a picture in 'images' has no bytes, at most a path"):
        open_source(spec)
    source = open_source(spec | {"on_bad_record": "skip"})
    assert [len(each.images) for each in source] == [1, 0] and source.skipped == 1


def test_a_column_without_pictures_is_said_when_the_set_is_opened(tmp_path: Path, draw: Callable) -> None:
    rows = {"question": ["Is it?"], "answer": ["Yes."], "images": ["a.png"]}
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "disk")
    with pytest.raises(DataError, match=r"the column 'images' of .* holds string, not pictures"):
        open_source(f"hub:{tmp_path / 'disk'}")
