"""Taking files out of zip archives (wheels are zip archives too) without leaving the folder they belong in."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path, PurePosixPath

from rich.progress import Progress

from vlsafe.fetch.asset import FetchError


def extract(archive: Path, source: str, target: Path, progress: Progress) -> None:
    """Take the member ``source`` to the file ``target``, or all below a folder ``source`` into the folder ``target``.

    A folder ends in ``/``; the empty ``source`` is the whole archive. Raises FetchError for an archive that is broken,
    lacks ``source``, or has a member that would leave ``target``.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [m for m in opened.infolist() if not m.is_dir() and _wanted(m.filename, source)]
            if not members:
                raise FetchError(f"{archive.name} holds no {source!r}; is it the right version?")
            task = progress.add_task(f"unpacking {archive.name}", total=len(members))
            for member in members:
                progress.advance(task)
                inner = member.filename.removeprefix(source)
                path = _inside(target, inner, archive) if inner else target
                path.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(member) as packed, path.open("wb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)
            progress.remove_task(task)
    except zipfile.BadZipFile as error:
        raise FetchError(f"{archive}: a broken zip archive ({error}); delete it and fetch again") from error


def _wanted(member: str, source: str) -> bool:
    return member.startswith(source) if source.endswith("/") or not source else member == source


def _inside(target: Path, inner: str, archive: Path) -> Path:
    pure = PurePosixPath(inner)
    if pure.is_absolute() or ".." in pure.parts or "\\" in inner:
        raise FetchError(f"{archive}: member {inner!r} would leave {target}; the archive is not to be trusted")
    return target / pure
