"""What one fetch promises whatever the kind: atomic, repeatable, never in the way of other files."""

from __future__ import annotations

import json
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from rich.progress import Progress

from tests.fetch.loopback import Site
from vlsafe.fetch import convert
from vlsafe.fetch.asset import Asset, FetchError, Part
from vlsafe.fetch.fetching import fetch


@pytest.fixture
def asset(site: Site) -> Asset:
    site.files["/words.txt"] = b"hello"
    return Asset("words", "url", "https://example.org", "MIT", parts=(Part(f"{site.address}/words.txt", "words.txt"),))


@pytest.fixture
def converter(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("shouting")

    def shout(raw: Path, ready: Path) -> None:
        (ready / "shouted.txt").write_text((raw / "words.txt").read_text().upper())

    module.shout = shout  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shouting", module)
    return module


def test_the_manifest_says_what_is_there(asset: Asset, tmp_path: Path, progress: Progress) -> None:
    content = json.loads((fetch(asset, tmp_path, progress) / "fetched.json").read_text())
    assert content["kind"] == "url" and content["licence"] == "MIT" and content["where"] == "https://example.org"
    sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert content["files"] == {"words.txt": {"bytes": 5, "sha256": sha256}}


@pytest.mark.parametrize("harm", ["changed", "same size", "lost"])
def test_a_damaged_asset_is_fetched_again(
    asset: Asset, site: Site, tmp_path: Path, progress: Progress, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = fetch(asset, tmp_path, progress) / "words.txt"
    if harm == "lost":
        file.unlink()
    else:
        file.write_text("hullo" if harm == "same size" else "something longer")
    fetch(asset, tmp_path, progress)
    assert file.read_bytes() == b"hello"
    assert len(site.requests) == 2


def test_conversion_runs_once_and_again_when_its_version_rises(
    asset: Asset, site: Site, tmp_path: Path, progress: Progress, converter: types.ModuleType
) -> None:
    asset = replace(asset, convert="shouting:shout", conversion=1)
    folder = fetch(asset, tmp_path, progress)
    assert {path.name for path in folder.iterdir()} == {"shouted.txt", "fetched.json"}
    fetch(asset, tmp_path, progress)
    assert len(site.requests) == 1
    fetch(replace(asset, conversion=2), tmp_path, progress)
    assert len(site.requests) == 2


def test_a_kill_during_conversion_costs_only_the_conversion(
    asset: Asset, site: Site, tmp_path: Path, progress: Progress, converter: types.ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    asset = replace(asset, convert="shouting:shout")

    def killed(raw: Path, ready: Path) -> None:
        (ready / "half.txt").write_text("h")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(converter, "shout", killed)
        fetch(asset, tmp_path, progress)
    assert not (tmp_path / "words").exists()
    assert (fetch(asset, tmp_path, progress) / "shouted.txt").read_text() == "HELLO"
    assert not (tmp_path / "words/half.txt").exists()
    assert len(site.requests) == 1


def test_a_library_that_wraps_the_full_disk_is_understood(
    asset: Asset, tmp_path: Path, progress: Progress, converter: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(raw: Path, ready: Path) -> None:
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(converter, "shout", save)
    with pytest.raises(FetchError, match="no space left on the disk"):
        fetch(replace(asset, convert="shouting:shout"), tmp_path, progress)


def test_a_folder_of_the_users_own_is_never_touched(asset: Asset, tmp_path: Path, progress: Progress) -> None:
    (tmp_path / "words").mkdir()
    (tmp_path / "words/thesis.txt").write_text("years of work")
    with pytest.raises(FetchError, match=r"was not made by fetch.*move it away or choose another folder with --cache"):
        fetch(asset, tmp_path, progress)
    assert (tmp_path / "words/thesis.txt").read_text() == "years of work"


def test_parts_of_another_entry_do_not_mix_in(asset: Asset, site: Site, tmp_path: Path, progress: Progress) -> None:
    failing = replace(asset, parts=(*asset.parts, Part(f"{site.address}/gone", "gone")))
    with pytest.raises(FetchError):
        fetch(failing, tmp_path, progress)
    site.files["/words.txt"] = b"newer"
    assert (fetch(asset, tmp_path, progress) / "words.txt").read_bytes() == b"newer"


def test_what_is_drawn_is_drawn_again_when_the_code_is_another(
    tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "code/sketch/__init__.py"
    code.parent.mkdir(parents=True)
    code.write_text("colour = 'red'")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    drawings = []

    def build(out: Path) -> None:
        assert list(out.iterdir()) == []
        drawings.append(out)
        (out / "picture.txt").write_text("a square")

    monkeypatch.setattr("vlsafe.data.drawn.build", build)
    asset = Asset("sketches", "drawn", "sketch", "MIT")
    for _ in range(2):
        fetch(asset, tmp_path / "cache", progress)
    assert len(drawings) == 1
    code.write_text("colour = 'blue'")
    fetch(asset, tmp_path / "cache", progress)
    assert len(drawings) == 2


def test_two_at_once_download_once(asset: Asset, site: Site, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: fetch(asset, tmp_path, Progress(disable=True)), range(4)))
    assert folders == [tmp_path / "words"] * 4
    assert len(site.requests) == 1


def test_a_cache_that_is_a_file(asset: Asset, tmp_path: Path, progress: Progress) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(FetchError, match=r"cannot write to the cache .*choose another folder with --cache"):
        fetch(asset, tmp_path / "cache", progress)


def test_a_missing_reader_of_quantised_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FetchError, match=r"run: pip install 'vlsafe\[small\]'"):
        convert.smollm2(tmp_path, tmp_path)
