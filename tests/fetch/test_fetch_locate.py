"""Finding fetched assets, and the words when they are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlsafe.errors import ConfigError, DataError
from vlsafe.fetch import manifest
from vlsafe.fetch.catalogue import CATALOGUE
from vlsafe.fetch.locate import default_cache, located


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "easy-vqa"
    folder.mkdir()
    (folder / "answers.txt").write_text("yes\nno\n")
    manifest.write(CATALOGUE["easy-vqa"], folder, {})
    return tmp_path


def test_a_finished_asset_is_found(cache: Path) -> None:
    assert located("easy-vqa", cache) == cache / "easy-vqa"


def test_a_missing_cache_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        DataError, match=rf"easy-vqa is not in the cache {tmp_path}; .*fetch easy-vqa --cache {tmp_path}`"
    ):
        located("easy-vqa", tmp_path)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert default_cache() == tmp_path / ".cache" / "vlsafe"
    with pytest.raises(DataError, match=r"is not in the cache .*vlsafe; run `python -m vlsafe fetch easy-vqa`$"):
        located("easy-vqa")


def test_an_asset_that_is_not_whole_is_refused(cache: Path) -> None:
    (cache / "easy-vqa/answers.txt").write_text("yes\n")
    with pytest.raises(
        DataError, match=r"its folder holds a changed answers\.txt; run `python -m vlsafe fetch easy-vqa"
    ):
        located("easy-vqa", cache)
    (cache / "easy-vqa/answers.txt").unlink()
    with pytest.raises(DataError, match=r"has lost answers\.txt"):
        located("easy-vqa", cache)
    (cache / "easy-vqa/fetched.json").write_text("{")
    with pytest.raises(DataError, match=r"has a fetched\.json that cannot be read"):
        located("easy-vqa", cache)


def test_another_asset_under_the_name_is_refused(cache: Path) -> None:
    (cache / "easy-vqa").rename(cache / "xstest")
    with pytest.raises(DataError, match=r"was fetched as something else \(name, kind, where, sha256, parts changed\)"):
        located("xstest", cache)


def test_unknown_names_get_a_near_one() -> None:
    with pytest.raises(ConfigError, match=r"unknown asset 'easyvqa'\. Did you mean 'easy-vqa'\?"):
        located("easyvqa")
