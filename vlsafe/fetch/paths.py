"""``cache:NAME[/inside]`` in configs: a path inside a fetched asset."""

from __future__ import annotations

from pathlib import Path

from vlsafe.fetch import locate

_chosen: list[Path] = []


def use_cache(directory: Path | None) -> None:
    """Read ``cache:`` paths from this directory for the rest of the process; None is the default one."""
    _chosen[:] = [] if directory is None else [directory]


def resolved(path: str) -> str:
    """``cache:smollm2-135m-instruct`` -> the asset's folder; any other path or hub name stays as it is.

    Raises DataError, with the command that fetches it, when the asset is not in the cache.
    """
    if not path.startswith("cache:"):
        return path
    name, _, inside = path.removeprefix("cache:").partition("/")
    folder = locate.located(name, _chosen[0] if _chosen else None)
    return str(folder / inside) if inside else str(folder)


def cache_directory() -> Path:
    """The directory that ``cache:`` paths are read from; what is made once and kept goes there too."""
    return (_chosen[0] if _chosen else locate.default_cache()).expanduser()
