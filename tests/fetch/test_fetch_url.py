"""Downloads against a loopback server: cut connections, changed files, wrong hashes, full disks."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import pytest
from rich.progress import Progress

from tests.fetch.loopback import Site
from vlsafe.fetch.asset import Asset, FetchError, Part
from vlsafe.fetch.fetching import fetch
from vlsafe.fetch.kinds.url import PIECE_BYTES, TRIES

CONTENT = bytes(range(256)) * 4096  # 1 MiB


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def asset_at(site: Site, content: bytes = CONTENT, pinned: bool = True) -> Asset:
    site.files["/thing.bin"] = content
    part = Part(f"{site.address}/thing.bin", "inner/thing.bin", sha(content) if pinned else "")
    return Asset("thing", "url", "https://example.org/about", "MIT", parts=(part,))


def test_a_file_is_downloaded_once(site: Site, tmp_path: Path, progress: Progress) -> None:
    asset = asset_at(site)
    folder = fetch(asset, tmp_path, progress)
    assert (folder / "inner/thing.bin").read_bytes() == CONTENT
    assert fetch(asset, tmp_path, progress) == folder
    assert site.requests == [("/thing.bin", None)]
    assert not (tmp_path / "thing.partial").exists()


def test_a_cut_connection_goes_on_where_it_stopped(site: Site, tmp_path: Path, progress: Progress) -> None:
    asset = asset_at(site)
    site.cuts = [5 * PIECE_BYTES, 3 * PIECE_BYTES + 99]
    folder = fetch(asset, tmp_path, progress)
    assert (folder / "inner/thing.bin").read_bytes() == CONTENT
    assert [wanted for _, wanted in site.requests] == [
        None,
        f"bytes={5 * PIECE_BYTES}-",
        f"bytes={8 * PIECE_BYTES}-",
    ]


def test_a_later_call_goes_on_too(site: Site, tmp_path: Path, progress: Progress) -> None:
    asset = asset_at(site)
    site.cuts = [PIECE_BYTES] * TRIES
    with pytest.raises(
        FetchError, match=rf"failed {TRIES} times.* 327,680 bytes are kept in .*run the same command again"
    ):
        fetch(asset, tmp_path, progress)
    assert not (tmp_path / "thing").exists()
    site.requests.clear()
    folder = fetch(asset, tmp_path, progress)
    assert (folder / "inner/thing.bin").read_bytes() == CONTENT
    assert site.requests == [("/thing.bin", f"bytes={TRIES * PIECE_BYTES}-")]


def test_bytes_of_two_versions_never_mix(site: Site, tmp_path: Path, progress: Progress) -> None:
    asset = asset_at(site, pinned=False)
    site.cuts = [PIECE_BYTES] * TRIES
    with pytest.raises(FetchError):
        fetch(asset, tmp_path, progress)
    newer = CONTENT[::-1]
    site.files["/thing.bin"] = newer
    assert (fetch(asset, tmp_path, progress) / "inner/thing.bin").read_bytes() == newer


def test_a_server_that_cannot_resume_sends_all_again(site: Site, tmp_path: Path, progress: Progress) -> None:
    asset = asset_at(site)
    site.resumes = False
    site.cuts = [PIECE_BYTES]
    assert (fetch(asset, tmp_path, progress) / "inner/thing.bin").read_bytes() == CONTENT


def test_a_download_that_was_whole_before_the_kill(site: Site, tmp_path: Path, progress: Progress) -> None:
    asset = asset_at(site)
    site.cuts = [PIECE_BYTES] * TRIES
    with pytest.raises(FetchError):
        fetch(asset, tmp_path, progress)
    (tmp_path / "thing.partial/downloads/0.part").write_bytes(CONTENT)
    assert (fetch(asset, tmp_path, progress) / "inner/thing.bin").read_bytes() == CONTENT


def test_a_wrong_hash_is_refused_and_deleted(site: Site, tmp_path: Path, progress: Progress) -> None:
    asset = asset_at(site)
    site.files["/thing.bin"] = b"something else"
    with pytest.raises(FetchError, match=f"sha256 {sha(b'something else')}, expected {sha(CONTENT)}"):
        fetch(asset, tmp_path, progress)
    assert not (tmp_path / "thing").exists()
    assert not (tmp_path / "thing.partial/downloads/0.part").exists()
    site.files["/thing.bin"] = CONTENT
    assert (fetch(asset, tmp_path, progress) / "inner/thing.bin").read_bytes() == CONTENT


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk(site: Site, tmp_path: Path, progress: Progress) -> None:
    asset = asset_at(site)
    site.failures = [404]
    with pytest.raises(FetchError):
        fetch(asset, tmp_path, progress)
    part = tmp_path / "thing.partial/downloads/0.part"
    part.symlink_to("/dev/full")  # the kernel itself answers ENOSPC
    with pytest.raises(FetchError, match=r"no space left on the disk of .*thing\.partial; free some space"):
        fetch(asset, tmp_path, progress)
    part.unlink()
    assert (fetch(asset, tmp_path, progress) / "inner/thing.bin").read_bytes() == CONTENT


def test_refusals_are_final_and_server_trouble_is_not(site: Site, tmp_path: Path, progress: Progress) -> None:
    asset = asset_at(site)
    site.failures = [403]
    with pytest.raises(FetchError, match=r"403 Forbidden.*https://example\.org/about"):
        fetch(asset, tmp_path, progress)
    assert len(site.requests) == 1
    site.failures = [503, 429]
    assert fetch(asset, tmp_path, progress).is_dir()
    assert len(site.requests) == 4


def test_only_missing_parts_are_downloaded_after_an_interruption(
    site: Site, tmp_path: Path, progress: Progress
) -> None:
    site.files = {"/a": b"first"}
    parts = (Part(f"{site.address}/a", "a"), Part(f"{site.address}/b", "b"))
    asset = Asset("pair", "url", "https://example.org", "MIT", parts=parts)
    with pytest.raises(FetchError, match="404"):
        fetch(asset, tmp_path, progress)
    site.files["/b"] = b"second"
    site.requests.clear()
    folder = fetch(asset, tmp_path, progress)
    assert [(folder / name).read_bytes() for name in "ab"] == [b"first", b"second"]
    assert site.requests == [("/b", None)]


def zipped(**files: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("UP_", "../"), text)
    return packed.getvalue()


def test_archives_are_unpacked(site: Site, tmp_path: Path, progress: Progress) -> None:
    site.files["/pictures.zip"] = zipped(one="1", two="2")
    part = Part(f"{site.address}/pictures.zip", "pictures", unpack=True)
    folder = fetch(Asset("set", "url", "https://example.org", "MIT", parts=(part,)), tmp_path, progress)
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "words"), [(zipped(UP_evil="x"), "would leave"), (b"no archive", "a broken zip archive")]
)
def test_bad_archives(site: Site, tmp_path: Path, progress: Progress, content: bytes, words: str) -> None:
    site.files["/pictures.zip"] = content
    part = Part(f"{site.address}/pictures.zip", "pictures", unpack=True)
    with pytest.raises(FetchError, match=words):
        fetch(Asset("set", "url", "https://example.org", "MIT", parts=(part,)), tmp_path, progress)
    assert not (tmp_path / "set").exists()
    assert not list(tmp_path.rglob("evil"))
