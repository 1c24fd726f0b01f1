"""Pictures by their content: what is missing or broken, and copies by file hash and by difference hash."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vlsafe.audit.exchanges import Audited
from vlsafe.audit.findings import Finding, Severity
from vlsafe.conversation import ImageRef
from vlsafe.data.images import find_image, image_bytes, open_image
from vlsafe.errors import DataError

NEAR = 4
"""Hashes that differ in at most this many of 64 bits belong to pictures that look the same."""

BANDS = NEAR + 1
"""Two hashes that differ in NEAR bits are equal in at least one of NEAR + 1 parts, so only such pairs are compared."""

PLAIN = 8
"""A hash with fewer bits set, or unset, comes from a flat picture and says nothing about what it shows."""


@dataclass(frozen=True, slots=True)
class Picture:
    """``problem`` is empty for a picture that can be opened; ``sha256`` and ``look`` (64 bits) are of such."""

    ref: ImageRef
    records: tuple[str, ...]
    missing: bool = False
    problem: str = ""
    sha256: str = ""
    look: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """All pictures of a source."""

    source: str
    pictures: tuple[Picture, ...]

    @property
    def whole(self) -> list[Picture]:
        return [picture for picture in self.pictures if not picture.problem]

    def row(self) -> dict[str, int]:
        missing = sum(picture.missing for picture in self.pictures)
        return {
            "pictures": len(self.pictures),
            "whole": len(self.whole),
            "missing": missing,
            "broken": len(self.pictures) - len(self.whole) - missing,
        }


def look_at(source: Audited) -> Seen:
    """Find, hash and decode every picture, in threads: reading and decoding leave the interpreter free."""
    users: dict[ImageRef, dict[str, None]] = defaultdict(dict)
    for each in source.exchanges:
        for ref in each.images:
            users[ref][each.record] = None
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return Seen(source.label, tuple(pool.map(_looked, users, (tuple(records) for records in users.values()))))


def difference_hash(image: Image.Image) -> int:
    """64 bits: of the grey picture shrunk to 9 x 8, whether each place is darker than its right neighbour."""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    return int.from_bytes(np.packbits(grey[:, :-1] < grey[:, 1:]).tobytes(), "big")


def picture_findings(seen: Seen) -> list[Finding]:
    """Missing and broken pictures of one source, and copies within it."""
    found = []
    total = len(seen.pictures)
    missing = [picture for picture in seen.pictures if picture.missing]
    broken = [picture for picture in seen.pictures if picture.problem and not picture.missing]
    for code, bad in (("missing_picture", missing), ("broken_picture", broken)):
        if bad:
            reasons = "all pictures are absent" if len(bad) == total else f"first: {bad[0].problem}"
            what = f"{len(bad)} of {total} pictures cannot be {'found' if bad is missing else 'opened'}; {reasons}"
            ids = [record for picture in bad for record in picture.records]
            severity: Severity = "serious" if bad is broken or len(bad) < total else "warning"
            found.append(Finding(code, severity, seen.source, len(bad), total, what, ids=ids))
    whole = seen.whole
    same = _by_record((old, new) for old, new in _same(whole, whole) if old is not new)
    alike = _by_record(near_pairs(whole, whole))
    if same:
        what = f"{len(same)} of {total} pictures are the same file as an earlier one"
        found.append(
            Finding("duplicate_picture", "warning", seen.source, len(same), total, what, ids=[*same], matches=same)
        )
    if alike:
        what = f"{len(alike)} of {total} pictures look like an earlier one ({NEAR} of 64 bits apart or less)"
        found.append(
            Finding("similar_picture", "note", seen.source, len(alike), total, what, ids=[*alike], matches=alike)
        )
    return found


def picture_leaks(train: Seen, test: Seen) -> list[Finding]:
    """Pictures of ``test`` that ``train`` holds as well, by file and by look."""
    found = []
    total = len(test.pictures)
    same = _by_record(_same(train.whole, test.whole))
    alike = _by_record(near_pairs(train.whole, test.whole))
    if same:
        what = f"{len(same)} of {total} pictures are in {train.source} as well, byte for byte"
        found.append(
            Finding("leaked_picture", "serious", test.source, len(same), total, what, ids=[*same], matches=same)
        )
    if alike:
        what = f"{len(alike)} of {total} pictures look like one in {train.source} ({NEAR} of 64 bits apart or less)"
        ids = list(alike)
        found.append(
            Finding("leaked_similar_picture", "warning", test.source, len(alike), total, what, ids=ids, matches=alike)
        )
    return found


def near_pairs(old: Sequence[Picture], new: Sequence[Picture]) -> Iterator[tuple[Picture, Picture]]:
    """Pairs of different files that look the same; with ``old is new`` each pair once, the earlier one first."""
    buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, picture in enumerate(old):
        if not _plain(picture.look):
            for key in _bands(picture.look):
                buckets[key].append(index)
    for index, picture in enumerate(new):
        if _plain(picture.look):
            continue
        candidates = sorted({place for key in _bands(picture.look) for place in buckets.get(key, ())})
        for place in candidates:
            if old is new and place >= index:
                break
            other = old[place]
            if other.sha256 != picture.sha256 and (other.look ^ picture.look).bit_count() <= NEAR:
                yield other, picture


def _looked(ref: ImageRef, records: tuple[str, ...]) -> Picture:
    try:
        find_image(ref)
    except DataError as error:
        return Picture(ref, records, missing=True, problem=str(error))
    try:
        digest = hashlib.sha256(image_bytes(ref)).hexdigest()
        with open_image(ref) as image:
            return Picture(ref, records, sha256=digest, look=difference_hash(image))
    except DataError as error:
        return Picture(ref, records, problem=str(error))


def _same(old: Sequence[Picture], new: Sequence[Picture]) -> Iterator[tuple[Picture, Picture]]:
    """Pairs of the same file; of several old ones the first."""
    first: dict[str, Picture] = {}
    for picture in old:
        first.setdefault(picture.sha256, picture)
    for picture in new:
        if picture.sha256 in first:
            yield first[picture.sha256], picture


def _by_record(pairs: Iterator[tuple[Picture, Picture]]) -> Mapping[str, list[str]]:
    matches: dict[str, list[str]] = defaultdict(list)
    for old, new in pairs:
        matches[new.records[0]].append(old.records[0])
    return dict(matches)


def _plain(look: int) -> bool:
    return not PLAIN <= look.bit_count() <= 64 - PLAIN


def _bands(look: int) -> list[tuple[int, int]]:
    """The hash cut into BANDS parts, each with its place."""
    width = -(-64 // BANDS)
    return [(place, (look >> place * width) & (1 << width) - 1) for place in range(BANDS)]
