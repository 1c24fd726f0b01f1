"""JSONL on disk: torn lines, full disks, wrong files."""

from __future__ import annotations

import errno
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from vlsafe.conversation import ImageRef
from vlsafe.errors import DataError, VlsafeError
from vlsafe.evaluation.records import Item, Verdict, append_jsonl, read_jsonl, to_json, write_text


def verdict(number: int) -> Verdict:
    return Verdict(f"key{number}", f"id{number}", "comply", "fake", explanation="“wörds”\u2028 \ud83d")


def test_items_and_verdicts_come_back_as_written(tmp_path: Path) -> None:
    item = Item("a", "b", "v", "harm", "q?", ImageRef(tmp_path / "x.zip", "y/z.png"), meta={"k": "v"})
    append_jsonl(tmp_path / "i.jsonl", [item])
    append_jsonl(tmp_path / "v.jsonl", [verdict(1)])
    append_jsonl(tmp_path / "v.jsonl", [verdict(2)])
    assert read_jsonl(tmp_path / "i.jsonl", Item) == [item]
    assert [asdict(row) for row in read_jsonl(tmp_path / "v.jsonl", Verdict)] == [
        asdict(verdict(1)),
        asdict(verdict(2)),
    ]


@pytest.mark.parametrize("cut", [1, 12, 70])
def test_a_torn_last_line_is_dropped_and_then_cut_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "v.jsonl"
    append_jsonl(path, [verdict(1), verdict(2)])
    size = len((to_json(verdict(2)) + "\n").encode("utf-8", "backslashreplace"))
    path.write_bytes(path.read_bytes()[: -(size - cut)])
    assert [row.id for row in read_jsonl(path, Verdict)] == ["id1"]
    append_jsonl(path, [verdict(3)])
    assert [row.id for row in read_jsonl(path, Verdict)] == ["id1", "id3"]


def test_a_whole_last_line_that_lacks_its_newline_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    append_jsonl(path, [verdict(1)])
    path.write_bytes(path.read_bytes()[:-1])
    append_jsonl(path, [verdict(2)])
    assert [row.id for row in read_jsonl(path, Verdict)] == ["id1", "id2"]


def test_a_broken_line_in_the_middle_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    path.write_text(to_json(Verdict("k", "i", "comply", "fake")) + '\n{"key": "x\n' + "{}\n")
    with pytest.raises(DataError, match=r"v\.jsonl, line 2: not JSON"):
        read_jsonl(path, Verdict)


def test_a_row_of_another_kind_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    append_jsonl(path, [Item("a", "b", "", "harm", "q?")])
    with pytest.raises(DataError, match="line 1: not a Verdict, it lacks key, label, judge"):
        read_jsonl(path, Verdict)


def test_a_full_disk_is_told_in_words(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(VlsafeError, match="cannot write /dev/full: No space left on device; free space"):
        append_jsonl(full, [verdict(1)])


def test_a_failed_whole_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.json"
    write_text(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(VlsafeError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["m.json"]
