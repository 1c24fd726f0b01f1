"""The table itself: well formed, and true where its files are at hand."""

from __future__ import annotations

import importlib
import re
from pathlib import Path, PurePosixPath

import pytest

from vlsafe.fetch.asset import Asset
from vlsafe.fetch.catalogue import ASSETS, CATALOGUE, GROUPS, chosen
from vlsafe.fetch.kinds import KINDS
from vlsafe.fetch.manifest import sha256_of


@pytest.mark.parametrize("asset", ASSETS, ids=lambda asset: asset.name)
def test_every_row_is_well_formed(asset: Asset) -> None:
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*", asset.name)
    assert asset.name not in GROUPS and not asset.name.endswith(".partial")
    assert asset.licence and asset.note and asset.kind in KINDS
    for sha256 in (asset.sha256, *(part.sha256 for part in asset.parts)):
        assert re.fullmatch(r"([0-9a-f]{64})?", sha256)
    for part in asset.parts:
        assert ".." not in PurePosixPath(part.path).parts and not part.path.startswith("/")
    files = [part.path for part in asset.parts if not part.unpack]
    assert asset.kind.startswith("hub") or len(files) == len(set(files))


@pytest.mark.parametrize("asset", ASSETS, ids=lambda asset: asset.name)
def test_every_row_fits_its_kind(asset: Asset) -> None:
    if asset.kind == "package":
        assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+", asset.where) and asset.sha256 and asset.parts
        assert any("LICENSE" in part.source or "licenses" in part.source for part in asset.parts)
    elif asset.kind == "url":
        assert asset.parts and all(re.match(r"https?://", part.source) for part in asset.parts)
        assert all(part.path or part.unpack for part in asset.parts)
    elif asset.kind.startswith("hub"):
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", asset.where)
    if asset.convert:
        module, _, function = asset.convert.partition(":")
        assert callable(getattr(importlib.import_module(module), function)) and asset.conversion >= 1


def test_groups_hold_names_of_the_catalogue() -> None:
    for names in GROUPS.values():
        assert all(name in CATALOGUE for name in names)
    assert [asset.name for asset in chosen(["small", "easy-vqa"])] == list(GROUPS["small"])


def test_pinned_hashes_are_those_of_the_real_files(shared_data: Path) -> None:
    checked = 0
    for name in ("xstest", "advbench", "figstep", "harmbench", "pope"):
        for part in CATALOGUE[name].parts:
            if part.sha256:
                assert sha256_of(shared_data / name / part.path) == part.sha256, part.source
                checked += 1
    assert checked == 12
