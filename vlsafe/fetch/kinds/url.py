"""Assets at plain web addresses: streamed to a ``.part`` file, resumed by Range requests, checked by sha256."""

from __future__ import annotations

import re
import time
from pathlib import Path

import requests
from rich.progress import Progress

from vlsafe.fetch.archive import extract
from vlsafe.fetch.asset import Asset, FetchError, Part
from vlsafe.fetch.manifest import sha256_of

TRIES = 5
FIRST_PAUSE_SEC = 1.0  # doubled after every failed try
PIECE_BYTES = 1 << 16  # what a cut connection loses at most: requests drops a piece that did not become full
TIMEOUT_SEC = (10, 60)  # to connect, between two pieces


def obtain(asset: Asset, downloads: Path, raw: Path, progress: Progress) -> dict[str, str]:
    """Download all parts; finished ones from an earlier, interrupted call are kept.

    Raises FetchError naming the address when the server refuses, the connection fails ``TRIES`` times (what came is
    kept), or the content's sha256 is not the catalogue's (the wrong file is deleted).
    """
    for number, part in enumerate(asset.parts):
        file = downloads / f"{number}.zip" if part.unpack else raw / part.path
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            _download(asset, part, downloads / f"{number}.part", progress).rename(file)
        if part.unpack:
            extract(file, "", raw / part.path, progress)
    return {}


def _download(asset: Asset, part: Part, partial: Path, progress: Progress) -> Path:
    pause = FIRST_PAUSE_SEC
    for last in [*[False] * (TRIES - 1), True]:
        try:
            _stream(asset, part, partial, progress)
            break
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            if last:
                kept = partial.stat().st_size if partial.exists() else 0
                raise FetchError(
                    f"{asset.name}: {part.source} failed {TRIES} times, last with: {error}. {kept:,} bytes are kept in "
                    f"{partial}; run the same command again to go on from there"
                ) from error
            time.sleep(pause)
            pause *= 2
    actual = sha256_of(partial)
    if part.sha256 and actual != part.sha256:
        partial.unlink()
        raise FetchError(
            f"{asset.name}: {part.source} has sha256 {actual}, expected {part.sha256}; the download was deleted. Fetch "
            "again; if it stays so, the file behind the address was changed: do not use it"
        )
    return partial


def _stream(asset: Asset, part: Part, partial: Path, progress: Progress) -> None:
    """One try: from the end of ``partial`` to the end of the file, or from the start if the server will not resume.

    The version (ETag) that the first bytes came from is kept beside them, so that bytes of two versions never mix.
    """
    version = partial.with_suffix(".etag")
    have = partial.stat().st_size if partial.exists() and version.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # lengths and ranges then count the file's own bytes
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": version.read_text(encoding="utf-8")}
    with requests.get(part.source, headers=headers, stream=True, timeout=TIMEOUT_SEC) as answer:
        if answer.status_code == 416:  # nothing after what we have: whole, or not this file at all; the hash tells
            return
        _refuse_failure(asset, part, answer)
        resumed = answer.status_code == 206 and _starts_at(answer) == have
        if have and answer.status_code == 206 and not resumed:
            version.unlink()
            raise requests.ConnectionError(f"the server resumed at another place than byte {have:,}")
        tag = answer.headers.get("ETag", answer.headers.get("Last-Modified", ""))
        if tag and not tag.startswith("W/"):
            version.write_text(tag, encoding="utf-8")
        else:
            version.unlink(missing_ok=True)  # no reliable version: a cut download starts again
        start = have if resumed else 0
        length = int(answer.headers["Content-Length"]) if "Content-Length" in answer.headers else None
        total = None if length is None else start + length
        size = "" if total is None else f" ({total / 1e6:,.1f} MB)"
        task = progress.add_task(f"{asset.name}: {part.source.rsplit('/', 1)[-1]}{size}", total=total, completed=start)
        with partial.open("ab" if resumed else "wb") as file:
            for piece in answer.iter_content(PIECE_BYTES):
                file.write(piece)
                progress.advance(task, len(piece))
        progress.remove_task(task)
        if total is not None and partial.stat().st_size < total:
            raise requests.ConnectionError(f"the connection was cut at byte {partial.stat().st_size:,} of {total:,}")


def _refuse_failure(asset: Asset, part: Part, answer: requests.Response) -> None:
    """Refused for good (4xx) is a FetchError at once; trouble on the server's side (429, 5xx) is tried again."""
    if answer.ok:
        return
    words = f"{answer.status_code} {answer.reason}"
    if answer.status_code == 429 or answer.status_code >= 500:
        raise requests.ConnectionError(f"the server said {words}")
    remedy = f" {asset.gated}" if asset.gated else f" See {asset.where} for where the file is now."
    raise FetchError(f"{asset.name}: {part.source}: the server said {words}.{remedy}")


def _starts_at(answer: requests.Response) -> int:
    match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(match.group(1)) if match else -1
