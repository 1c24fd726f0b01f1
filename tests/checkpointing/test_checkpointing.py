"""A checkpoint is whole or not there; a damaged one is told apart, and the one before it is used."""

from __future__ import annotations

import json
import logging
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from vlsafe.checkpointing import CHECKSUMS, AtomicCheckpointIO, appearing, checksum, damage, loaded, newest_whole
from vlsafe.errors import DataError

IO = AtomicCheckpointIO()


def written(path: Path, value: float = 1.0) -> Path:
    IO.save_checkpoint({"state_dict": {"weight": torch.full((50, 7), value)}, "global_step": int(value)}, path)
    return path


def in_turn(folder: Path, count: int) -> list[Path]:
    paths = [written(folder / f"step={step}.ckpt", step) for step in range(1, count + 1)]
    for age, path in enumerate(reversed(paths)):
        os.utime(path, ns=(10**18 - age, 10**18 - age))
    return paths


def test_what_is_written_is_read(tmp_path: Path) -> None:
    state = IO.load_checkpoint(written(tmp_path / "a" / "one.ckpt", 3.0), weights_only=True)
    assert torch.equal(state["state_dict"]["weight"], torch.full((50, 7), 3.0)) and state["global_step"] == 3
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["one.ckpt"]


def test_a_failed_write_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "last.ckpt", 1.0)

    def full(_: Any, file: Path) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        IO.save_checkpoint({}, path)
    monkeypatch.undo()
    assert loaded(path)["global_step"] == 1
    assert [each.name for each in tmp_path.iterdir()] == ["last.ckpt"]


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a power cut after the rename would leave a name without content."""
    events: list[str] = []
    flush, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("flush"), flush(handle))[1])
    monkeypatch.setattr(os, "replace", lambda old, new: (events.append("rename"), replace(old, new))[1])
    written(tmp_path / "one.ckpt")
    assert events == ["flush", "rename", "flush"]


def test_every_cut_is_seen(tmp_path: Path) -> None:
    path = written(tmp_path / "one.ckpt")
    content = path.read_bytes()
    assert damage(path) is None
    for length in (0, 1, 100, len(content) // 2, len(content) - 100, len(content) - 1):
        path.write_bytes(content[:length])
        assert "cut short" in str(damage(path)), length


def test_a_changed_byte_in_any_record_is_seen(tmp_path: Path) -> None:
    path = written(tmp_path / "one.ckpt")
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    assert len(records) > 3
    for name, record in records.items():
        place = content.index(record) + len(record) // 2
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert damage(path) is not None, name


def test_the_one_before_a_damaged_one_is_used_and_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, two, three = in_turn(tmp_path, 3)
    assert newest_whole(tmp_path) == three
    stamp = three.stat()
    three.write_bytes(three.read_bytes()[:-500])
    os.utime(three, ns=(stamp.st_mtime_ns, stamp.st_mtime_ns))
    with caplog.at_level(logging.WARNING):
        assert newest_whole(tmp_path) == two
    assert "step=3.ckpt is passed over: cut short" in caplog.text
    with pytest.raises(DataError, match=r"step=3\.ckpt cannot be used: cut short .* go on from .*step=2\.ckpt"):
        loaded(three)
    for path in (one, two):
        path.unlink()
    assert newest_whole(tmp_path) is None
    with pytest.raises(DataError, match="no other whole one"):
        loaded(three)


def folder_checkpoint(path: Path, content: bytes) -> Path:
    with appearing(path) as partial:
        partial.mkdir()
        (partial / "rest.pt").write_bytes(content)
        (partial / CHECKSUMS).write_text(json.dumps({"rest.pt": checksum(partial / "rest.pt")}))
    return path


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    path = folder_checkpoint(tmp_path / "one.ckpt", b"first")
    folder_checkpoint(path, b"second")  # takes the place of the first
    assert (path / "rest.pt").read_bytes() == b"second" and damage(path) is None
    assert [each.name for each in tmp_path.iterdir()] == ["one.ckpt"]
    (path / "rest.pt").write_bytes(b"secone")
    assert damage(path) == "rest.pt does not match its checksum"
    (path / "rest.pt").unlink()
    assert damage(path) == "rest.pt is missing"
    (path / CHECKSUMS).unlink()
    assert damage(path) == "checksums.json is missing or cut short"


def test_a_folder_moved_aside_is_found_when_the_new_one_never_came(tmp_path: Path) -> None:
    path = folder_checkpoint(tmp_path / "last.ckpt", b"first")
    aside = path.rename(tmp_path / ".last.ckpt.previous")  # killed between two renames
    assert newest_whole(tmp_path) == aside
    folder_checkpoint(path, b"second")
    assert newest_whole(tmp_path) == path
