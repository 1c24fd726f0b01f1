"""That the pictures of a source are there: looked up once, and known to be unchanged as long as their folders are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from vlsafe.conversation import ImageRef
from vlsafe.data.images import find_image
from vlsafe.data.problems import BadRecords, Policy
from vlsafe.errors import DataError


def records_with_pictures(
    images: Sequence[tuple[ImageRef, ...]], path: Path, policy: Policy
) -> tuple[Sequence[int], int]:
    """Which records have all their pictures, and how many pictures are wanted in vain by the others.

    ``images``: the pictures of each record. Raises DataError with the missing ones unless ``policy`` skips.
    """
    distinct = dict.fromkeys(image for one in images for image in one)
    if policy == "error":
        require_images(distinct, path)
        return range(len(images)), 0
    missing = {image: reason for image in distinct if (reason := _why_missing(image))}
    bad = BadRecords(path, policy)
    for place, wanted in enumerate(images):
        bad.add(place, None, [missing[image] for image in wanted if image in missing])
    bad.done()
    return [place for place, wanted in enumerate(images) if not missing.keys() & set(wanted)], bad.count


def require_images(images: Iterable[ImageRef], path: Path) -> None:
    """Raises one DataError with the number of pictures that cannot be found, and the first reasons."""
    total, bad = 0, 0
    reasons: dict[str, None] = {}  # a missing root is the same reason for all of its pictures
    for image in images:
        total += 1
        reason = _why_missing(image)
        if reason:
            bad += 1
            reasons[reason] = None
    if reasons:
        first = "".join(f"\n  - {reason}" for reason in list(reasons)[:5])
        more = f"\n  ... and {len(reasons) - 5} more" if len(reasons) > 5 else ""
        raise DataError(
            f"{path}: {bad} of {total} pictures cannot be used:{first}{more}\n"
            "To read the records without their pictures, open the source with check_images: false; to leave out the "
            "records that lack theirs, with on_bad_record: skip"
        )


def _why_missing(image: ImageRef) -> str:
    try:
        find_image(image)
    except DataError as error:
        return str(error)
    return ""


class PicturesNote:
    """Kept beside an index: the folders and zip files that held every picture, with their times of change.

    A picture that is added, removed or renamed changes the time of its folder, so that hundreds of thousands of
    look-ups are not done again at each start.
    """

    def __init__(self, index: Path) -> None:
        self._file = index / "pictures.json"

    def holds(self) -> bool:
        """Whether pictures were all there, and nothing was moved since."""
        if not self._file.exists():
            return False
        noted: dict[str, int] = json.loads(self._file.read_text(encoding="utf-8"))
        return all(_changed(Path(place)) == time for place, time in noted.items())

    def write(self, images: Iterable[ImageRef]) -> None:
        places = {str((image.root / image.name).parent if image.root.is_dir() else image.root) for image in images}
        self._file.write_text(json.dumps({place: _changed(Path(place)) for place in places}), encoding="utf-8")


def _changed(place: Path) -> int:
    return place.stat().st_mtime_ns if place.exists() else -1
