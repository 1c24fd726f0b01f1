"""Where fetched assets live, and how the rest of the project finds them."""

from __future__ import annotations

from pathlib import Path

from vlsafe.errors import DataError, MissingDataError
from vlsafe.fetch import manifest
from vlsafe.fetch.catalogue import CATALOGUE


def default_cache() -> Path:
    """``~/.cache/vlsafe``; every verb that reads assets takes another folder instead."""
    return Path.home() / ".cache" / "vlsafe"


def located(name: str, cache: Path | None = None) -> Path:
    """The folder of the finished asset ``name``.

    Raises ConfigError for a name that the catalogue does not have (with the nearest one), MissingDataError for an asset
    that is not in the cache, DataError for one that is not whole there.
    """
    asset = CATALOGUE[name]
    cache = (cache or default_cache()).expanduser()
    folder = asset.folder(cache)
    why = manifest.damage(asset, folder)
    if not why:
        return folder
    option = "" if cache == default_cache() else f" --cache {cache}"
    remedy = f"run `python -m vlsafe fetch {name}{option}`"
    if why == "is not fetched yet":
        raise MissingDataError(f"{name} is not in the cache {cache}; {remedy}")
    raise DataError(f"{name} is not in the cache {cache} as it should be: its folder {why}; {remedy}")
