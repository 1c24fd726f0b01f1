"""Fetching one asset: obtain, convert, describe, and only then give it its place in the cache."""

from __future__ import annotations

import errno
import importlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from rich.progress import Progress

from vlsafe.fetch import manifest
from vlsafe.fetch.asset import Asset, FetchError
from vlsafe.fetch.kinds import KINDS


def fetch(asset: Asset, cache: Path, progress: Progress) -> Path:
    """Bring ``asset`` to its folder of the cache and return that; one that is already whole is left as it is.

    All work happens in ``cache/<name>.partial``, which is renamed at the end: what stands under the final name is
    complete. After an error or a kill the next call goes on from there. Two processes may ask for the same asset: the
    second waits. Raises FetchError with the cause and what to do.
    """
    folder = asset.folder(cache)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _alone(cache / f".{asset.name}.lock", asset, progress):
            if not _is_done(asset, folder, progress):
                _make(asset, cache, folder, progress)
                progress.console.print(f"{asset.name}: ready", highlight=False)
    except Exception as error:
        if _is_disk_full(error):
            raise FetchError(_disk_full_words(asset, cache)) from error
        if isinstance(error, PermissionError | NotADirectoryError | FileExistsError):
            words = f"{asset.name}: cannot write to the cache {cache} ({error}); choose another folder with --cache"
            raise FetchError(words) from error
        raise
    finally:
        for task in progress.task_ids:
            progress.remove_task(task)
    return folder


@contextmanager
def _alone(path: Path, asset: Asset, progress: Progress) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress.console.print(f"{asset.name}: waiting for another process that fetches it", highlight=False)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _is_done(asset: Asset, folder: Path, progress: Progress) -> bool:
    task = progress.add_task(f"{asset.name}: checking", total=None)
    why = manifest.damage(asset, folder, thorough=True)
    progress.remove_task(task)
    if why and folder.exists():
        if not (folder / manifest.FILE_NAME).exists() and not (asset.shared and _holds_folders_alone(folder)):
            raise FetchError(
                f"{asset.name}: {folder} exists, but was not made by fetch (it has no {manifest.FILE_NAME}); "
                "move it away or choose another folder with --cache"
            )
        if (folder / manifest.FILE_NAME).exists():
            progress.console.print(f"{asset.name}: the folder {why}; fetching it again", highlight=False)
    return not why


def _holds_folders_alone(folder: Path) -> bool:
    return all(path.is_dir() for path in folder.iterdir())


def _make(asset: Asset, cache: Path, folder: Path, progress: Progress) -> None:
    work = cache / f"{asset.name}.partial"
    downloads, raw, ready = work / "downloads", work / "raw", work / "ready"
    _keep_only_same(asset, work)
    for path in (downloads, raw):
        path.mkdir(parents=True, exist_ok=True)
    facts = KINDS[asset.kind](asset, downloads, raw, progress)
    if asset.convert:
        _convert(asset, raw, ready, progress)
    else:
        ready = raw
    progress.add_task(f"{asset.name}: writing its hashes down", total=None)
    manifest.write(asset, ready, facts)
    _put(asset, ready, folder)
    shutil.rmtree(work)


def _put(asset: Asset, ready: Path, folder: Path) -> None:
    """Give ``ready`` its place, instead of what an earlier fetch left there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if asset.shared and folder.exists():
        manifest.remove(folder)
        files = [path for path in ready.rglob("*") if path.is_file()]
        for path in sorted(files, key=lambda path: path.name == manifest.FILE_NAME):  # what says that it is whole, last
            target = folder / path.relative_to(ready)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        return
    if folder.exists():
        shutil.rmtree(folder)
    ready.rename(folder)


def _keep_only_same(asset: Asset, work: Path) -> None:
    """Go on only from a partial fetch of the very same catalogue entry; another one's parts must not mix in."""
    stamp, entry = work / "asset.json", json.dumps(manifest.identity(asset))
    if stamp.exists() and stamp.read_text(encoding="utf-8") == entry:
        return
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    stamp.write_text(entry, encoding="utf-8")


def _convert(asset: Asset, raw: Path, ready: Path, progress: Progress) -> None:
    progress.console.print(f"{asset.name}: converting, once", highlight=False)
    shutil.rmtree(ready, ignore_errors=True)
    ready.mkdir()
    module, _, function = asset.convert.partition(":")
    progress.stop()  # the libraries that convert draw bars of their own
    try:
        getattr(importlib.import_module(module), function)(raw, ready)
    finally:
        progress.start()


def _is_disk_full(error: BaseException | None) -> bool:
    """Also where a library wraps the system's error: safetensors passes on only its words."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _disk_full_words(asset: Asset, cache: Path) -> str:
    free = shutil.disk_usage(cache).free / 1e6
    return (
        f"{asset.name}: no space left on the disk of {cache} ({free:,.0f} MB free). What came so far is kept in "
        f"{cache / asset.name}.partial; free some space and run the same command again, or choose another disk "
        "with --cache"
    )
