"""Large files: indexed once, resumed after a kill, opened again at once."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from tests.data.large_files import record, written
from vlsafe.data.index import build, shards
from vlsafe.data.index.build import content_hash, is_large
from vlsafe.data.sources.llava import LLaVASource
from vlsafe.errors import DataError
from vlsafe.fetch.paths import use_cache


@pytest.fixture(autouse=True)
def cache(tmp_path: Path) -> Iterator[Path]:
    use_cache(tmp_path / "cache")
    yield tmp_path / "cache"
    use_cache(None)


@pytest.fixture
def all_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is indexed, in shards of four records."""
    monkeypatch.setattr(build, "LARGE", 1)
    monkeypatch.setattr(shards, "ROWS", 4)


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize("suffix", ["json", "jsonl", "jsonl.gz", "parquet"])
def test_an_indexed_source_is_the_source_in_memory(
    tmp_path: Path, cache: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [record(number) for number in range(10)]
    rows[7]["id"] = "r2"
    path = written(tmp_path / f"file.{suffix}", rows)
    with monkeypatch.context() as patch:
        patch.setattr(build, "LARGE", 2**40)
        expected = list(LLaVASource(path))
        assert not (cache / "index").exists()
    source = LLaVASource(path)
    assert list(source) == expected and source[7].id == "r2#2" and source[-1].id == "r9"
    assert len(list(cache.glob("index/*/shard-*.arrow"))) == 3
    assert list(pickle.loads(pickle.dumps(source))) == expected, "spawned workers read the same"
    with pytest.raises(IndexError):
        source[10]


@pytest.mark.usefixtures("all_large")
def test_a_second_open_reads_nothing_and_a_changed_file_is_indexed_anew(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "file.json", [record(number) for number in range(6)])
    LLaVASource(path)

    def refuse(*_: Any) -> None:
        raise AssertionError("the file was read again")

    with monkeypatch.context() as patch:
        patch.setattr(build, "open_stream", refuse)
        patch.setattr(build.hashlib, "file_digest", refuse)
        assert len(LLaVASource(path)) == 6
    os.utime(path)  # touched, not changed: hashed again, indexed no more
    with monkeypatch.context() as patch:
        patch.setattr(build, "open_stream", refuse)
        assert len(LLaVASource(path)) == 6
    written(path, [record(number) for number in range(8)])
    assert len(LLaVASource(path)) == 8
    assert len(list(cache.glob("index/*/done.json"))) == 2


def build_and_die(path: Path, cache: Path, records: int) -> None:
    use_cache(cache)
    convert, left = LLaVASource.convert, iter(range(records))

    def dying(self: LLaVASource, row: Any, index: int) -> Any:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return convert(self, row, index)

    LLaVASource.convert = dying  # type: ignore[method-assign]
    LLaVASource(path)


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize("suffix", ["json", "jsonl.gz", "parquet"])
def test_a_killed_build_goes_on_after_its_last_shard(
    tmp_path: Path, cache: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [record(number, id=f"r{number % 5}") for number in range(21)]
    path = written(tmp_path / f"file.{suffix}", rows)
    for records in (10, 9):  # the second run dies too, further on
        child = get_context("fork").Process(target=build_and_die, args=(path, cache, records))
        child.start()
        child.join(60)
        assert child.exitcode == -signal.SIGKILL
    assert len(list(cache.glob("index/*/shard-*.arrow"))) == 4
    converted: list[int] = []
    convert = LLaVASource.convert
    monkeypatch.setattr(
        LLaVASource, "convert", lambda self, row, index: (converted.append(index), convert(self, row, index))[1]
    )
    source = LLaVASource(path, check_images=False)
    assert converted == [16, 17, 18, 19, 20], "what was done is not done twice"
    monkeypatch.setattr(build, "LARGE", 2**40)
    assert list(source) == list(LLaVASource(path))


@pytest.mark.usefixtures("all_large")
def test_malformed_records_of_a_large_file_are_told_or_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows: list[Any] = [record(number) for number in range(50)]
    for number in range(10, 35):
        rows[number] = {"id": f"r{number}", "conversations": []}
    path = written(tmp_path / "file.json", rows)
    rows[40]["conversations"] = 3
    written(path, rows)
    told = r"26 problems, listed in \S+; the first of each kind:\n(  - .*\n){2}  \.\.\. and 24 more\nTo leave"
    with pytest.raises(DataError, match=told) as caught:
        LLaVASource(path)
    listed = Path(str(caught.value).split("listed in ")[1].split(";")[0]).read_text().splitlines()
    bad = [*range(10, 35), 40]
    assert len(listed) == 26 and all(f"[{n}] (id 'r{n}')" in line for n, line in zip(bad, listed, strict=True))
    for _ in range(2):  # built, then opened again
        caplog.clear()
        source = LLaVASource(path, on_bad_record="skip")
        assert [each.id for each in source] == [f"r{n}" for n in range(50) if n not in bad]
        assert source.skipped == 26 and "left out by on_bad_record: skip" in caplog.text


@pytest.mark.usefixtures("all_large")
def test_pictures_are_looked_up_once_and_again_when_a_folder_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"x")
    question = [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "!"}]
    rows = [{"id": name, "image": f"{name}.png", "conversations": question} for name in "ab"]
    path = written(tmp_path / "in.json", rows)
    looked: list[str] = []
    from vlsafe.data.sources import pictures

    find = pictures.find_image
    monkeypatch.setattr(pictures, "find_image", lambda ref: (looked.append(ref.name), find(ref))[1])
    LLaVASource(path)
    LLaVASource(path)
    assert looked == ["a.png", "b.png"]
    (tmp_path / "b.png").unlink()
    with pytest.raises(DataError, match=r"in\.json\[1\] \(id 'b'\): missing picture"):
        LLaVASource(path)
    assert [each.id for each in LLaVASource(path, on_bad_record="skip")] == ["a"]


def test_small_files_stay_in_memory_and_compressed_ones_count_eightfold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "file.json", [record(0)])
    monkeypatch.setattr(build, "LARGE", path.stat().st_size + 1)
    assert not is_large(path) and not is_large(tmp_path / "nowhere")
    assert is_large(written(tmp_path / "file.json.gz", [record(0)]))


def test_the_hash_is_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    first = content_hash(path)
    path.write_bytes(b"two")
    assert content_hash(path) != first
    path.write_bytes(b"one")
    assert content_hash(path) == first
