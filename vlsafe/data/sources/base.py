"""What every source is, and how its records are checked when it is opened."""

from __future__ import annotations

import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import vlsafe
from vlsafe.conversation import Conversation, ImageRef
from vlsafe.data.index.build import is_large, open_index
from vlsafe.data.index.streams import open_stream
from vlsafe.data.problems import BadRecord, BadRecords, LeftOut, Policy, UniqueIds, refuse_malformed
from vlsafe.data.sources.pictures import PicturesNote, note_missing, why_missing
from vlsafe.data.sources.rows import read_rows
from vlsafe.errors import DataError

T = TypeVar("T")


class Source(ABC):
    """One data set as Conversations, with random access.

    A source is checked when it is opened: afterwards every index from 0 to ``len(source) - 1`` gives a well-formed
    Conversation, whose ``source`` is ``name`` and whose ``id`` is unique. ``skipped`` counts what is wrong with the
    records that were left out by ``on_bad_record: skip``; ``changes`` counts, by kind, the records that were changed or
    left out by a rule of their format.
    """

    name: str
    skipped: int = 0
    changes: Mapping[str, int] = {}

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Conversation:
        """Raises IndexError past the end."""

    def __iter__(self) -> Iterator[Conversation]:
        return (self[index] for index in range(len(self)))


class RecordSource(Source):
    """A source whose file holds one Conversation a record; a subclass says how a record becomes one.

    A large file is indexed in the cache directory when it is first opened (:mod:`vlsafe.data.index.build`); a subclass
    sets what its ``convert`` depends on before it calls this initialiser, since that is part of the index's key.

    Raises DataError when the file cannot be read, with all malformed records, or with the missing pictures (these are
    looked up, not decoded; ``check_images=False`` leaves that out). With ``on_bad_record="skip"`` malformed records,
    and those whose pictures are missing, are left out, counted and listed in the log.
    """

    def __init__(self, path: Path | str, name: str, check_images: bool, on_bad_record: Policy = "error") -> None:
        self.path = Path(path)
        self.name = name
        bad = BadRecords(self.path, on_bad_record)
        self._records: Sequence[tuple[int, str, Any]]
        self._kept: Sequence[int]
        (self._open_indexed if is_large(self.path) else self._open_in_memory)(bad, check_images)
        bad.done()
        self.skipped, self.changes = bad.count, dict(bad.changes.counts)
        if not self._kept:
            raise DataError(f"{self.path}: every record was left out; see the log for why")

    @abstractmethod
    def convert(self, row: Any, index: int) -> Conversation:
        """The Conversation of a record. Raises BadRecord with every reason why there is none, LeftOut for a record of
        which its format says that nothing is to be trained."""

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> Conversation:
        number, identity, row = self._records[self._kept[index]]
        return replace(self.convert(row, number), id=identity)

    def _open_in_memory(self, bad: BadRecords, check_images: bool) -> None:
        rows = read_rows(self.path)
        wanted: list[tuple[int, str, tuple[ImageRef, ...]]] = []
        ids = UniqueIds(self.path)
        for number, conversation in convert_all(rows, self.convert, bad):
            bad.changes.add(number, rows[number], conversation.changes)
            wanted.append((number, ids.unique(conversation.id), conversation.images))
        ids.report()
        lacking = note_missing(wanted, bad) if check_images else set()
        self._records = _Numbered(rows, [(number, identity) for number, identity, _ in wanted])
        self._kept = [place for place, (number, _, _) in enumerate(wanted) if number not in lacking]

    def _open_indexed(self, bad: BadRecords, check_images: bool) -> None:
        seen: dict[ImageRef, None] = {}

        def convert(row: Any, number: int) -> Conversation:
            conversation = self.convert(row, number)
            if check_images:
                seen.update(dict.fromkeys(conversation.images))
            return conversation

        records, whole = open_index(self.path, self._reader(), convert, bad)
        self._records, self._kept = records, range(len(records))
        note = PicturesNote(records.folder)
        if not check_images or (note.holds() and not bad.stops):
            return
        if whole and not any(map(why_missing, seen)):  # the common case: nothing has to be read again
            note.write(seen)
            return
        seen.clear()
        lacking = note_missing(self._wanted(convert), bad)
        if lacking:
            self._kept = [place for place, (number, _, _) in enumerate(records) if number not in lacking]
        elif not bad.stops:
            note.write(seen)

    def _wanted(self, convert: Callable[[Any, int], Conversation]) -> Iterator[tuple[int, str, tuple[ImageRef, ...]]]:
        """Number, id and pictures of the well-formed records of the file."""
        for number, (row, _) in enumerate(open_stream(self.path)):
            try:
                conversation = convert(refuse_malformed(row), number)
            except BadRecord:
                continue  # noted when the index was built
            yield number, conversation.id, conversation.images

    def _reader(self) -> str:
        """Whatever decides what ``convert`` makes of a record: its code, and the options it was given."""
        options = sorted((key, str(value)) for key, value in vars(self).items() if not key.startswith("_"))
        return f"{vlsafe.__version__}\n{_code(type(self))}\n{options}"


def _code(kind: type[RecordSource]) -> str:
    try:
        return inspect.getsource(sys.modules[kind.__module__])
    except (KeyError, OSError, TypeError):  # a class typed at a prompt has no file
        return repr(kind.convert.__code__.co_code)


class _Numbered(Sequence[tuple[int, str, Any]]):
    """``(number, id, row)`` of the well-formed records of rows in memory."""

    def __init__(self, rows: Sequence[Any], numbers: list[tuple[int, str]]) -> None:
        self._rows = rows
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        number, identity = self._numbers[index]
        return number, identity, self._rows[number]


def convert_all(rows: Iterable[Any], convert: Callable[[Any, int], T], bad: BadRecords) -> Iterator[tuple[int, T]]:
    """``(number, converted)`` of every well-formed record; what is wrong with the others is noted in ``bad``, whose
    ``done`` tells all of it at once."""
    for number, row in enumerate(rows):
        try:
            converted = convert(refuse_malformed(row), number)
        except LeftOut as error:
            bad.changes.add(number, row, error.reasons)
        except BadRecord as error:
            bad.add(number, row, error.reasons)
        else:
            yield number, converted
