"""What every source is, and how its records are checked when it is opened."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from vlsafe.conversation import Conversation, ImageRef
from vlsafe.data.images import find_image
from vlsafe.data.sources.fields import BadRecord
from vlsafe.data.sources.rows import read_rows
from vlsafe.errors import DataError

log = logging.getLogger(__name__)

T = TypeVar("T")


class Source(ABC):
    """One data set as Conversations, with random access.

    A source is checked when it is opened: afterwards every index from 0 to ``len(source) - 1`` gives a well-formed
    Conversation, whose ``source`` is ``name`` and whose ``id`` is unique.
    """

    name: str

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Conversation:
        """Raises IndexError past the end."""

    def __iter__(self) -> Iterator[Conversation]:
        return (self[index] for index in range(len(self)))


class RecordSource(Source):
    """A source whose file holds one Conversation a record; a subclass says how a record becomes one.

    Raises DataError when the file cannot be read, with all malformed records, or with the missing pictures
    (these are looked up, not decoded; ``check_images=False`` leaves that out).
    """

    def __init__(self, path: Path | str, name: str, check_images: bool) -> None:
        self.path = Path(path)
        self.name = name
        self._rows = read_rows(self.path)
        ids: list[str] = []
        images: dict[ImageRef, None] = {}
        for conversation in convert_all(self.path, self._rows, self.convert):
            ids.append(conversation.id)
            images.update(dict.fromkeys(conversation.images))
        self._ids = unique_ids(ids, self.path)
        if check_images:
            require_images(images, self.path)

    @abstractmethod
    def convert(self, row: Any, index: int) -> Conversation:
        """The Conversation of a record. Raises BadRecord with every reason why there is none."""

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Conversation:
        return replace(self.convert(self._rows[index], index), id=self._ids[index])


def convert_all(path: Path, rows: Iterable[Any], convert: Callable[[Any, int], T]) -> Iterator[T]:
    """Convert every record, then raise one DataError with what was wrong in any of them: file, index, id, reason."""
    problems: list[str] = []
    for index, row in enumerate(rows):
        try:
            converted = convert(row, index)
        except BadRecord as bad:
            identity = f" (id {row['id']!r})" if isinstance(row, dict) and "id" in row else ""
            problems += [f"{path}[{index}]{identity}: {reason}" for reason in bad.reasons]
        else:
            yield converted
    if problems:
        raise DataError(problems)


def unique_ids(ids: Iterable[str], path: Path) -> list[str]:
    """The ids, the second ``x`` as ``x#2``; how many were changed is logged.

    Published sets do hold the same id twice: VLGuard's training file once, LLaVA's 665k mix for every picture that
    has several conversations. These are distinct samples, so they are kept rather than refused or merged.
    """
    unique: dict[str, None] = {}
    last: Counter[str] = Counter()
    repeated: list[str] = []
    for identity in ids:
        candidate = identity
        while candidate in unique:
            last[identity] = max(last[identity], 1) + 1
            candidate = f"{identity}#{last[identity]}"
        if candidate != identity:
            repeated.append(identity)
        unique[candidate] = None
    if repeated:
        log.warning("%s: %d repeated ids got a suffix (first: %s)", path, len(repeated), ", ".join(repeated[:3]))
    return list(unique)


def require_images(images: Iterable[ImageRef], path: Path) -> None:
    """Raises one DataError with the number of pictures that cannot be found, and the first reasons."""
    total, bad = 0, 0
    reasons: dict[str, None] = {}  # a missing root is the same reason for all of its pictures
    for image in images:
        total += 1
        try:
            find_image(image)
        except DataError as error:
            bad += 1
            reasons[str(error)] = None
    if reasons:
        first = "".join(f"\n  - {reason}" for reason in list(reasons)[:5])
        more = f"\n  ... and {len(reasons) - 5} more" if len(reasons) > 5 else ""
        raise DataError(
            f"{path}: {bad} of {total} pictures cannot be used:{first}{more}\n"
            "To read the records without their pictures, open the source with check_images: false"
        )
