"""That the pictures of a source are there: looked up once, and known to be unchanged as long as their folders are."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from vlsafe.conversation import ImageRef
from vlsafe.data.images import find_image
from vlsafe.data.problems import BadRecords
from vlsafe.errors import DataError


def note_missing(records: Iterable[tuple[int, str, tuple[ImageRef, ...]]], bad: BadRecords) -> set[int]:
    """The numbers of the records that lack a picture; each is noted in ``bad``.

    ``records``: number, id and pictures of each.
    """
    reasons: dict[ImageRef, str] = {}
    lacking: set[int] = set()
    for number, identity, images in records:
        reasons |= {image: why_missing(image) for image in images if image not in reasons}
        found = [reasons[image] for image in images if reasons[image]]
        if found:
            lacking.add(number)
            bad.add(number, {"id": identity}, found)
    if lacking:
        bad.remedies.append("to read the records without their pictures, open the source with check_images: false")
    return lacking


def why_missing(image: ImageRef) -> str:
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
