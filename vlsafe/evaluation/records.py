"""The records that pass between the four stages, and how they are kept as JSONL."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from vlsafe.conversation import Conversation, ImageRef, Turn
from vlsafe.errors import DataError, VlsafeError

Side = Literal["harm", "benign", "utility"]
Label = Literal["comply", "refuse", "partial", "safe_comment", "irrelevant", "invalid", "error"]


@dataclass(frozen=True, slots=True)
class Item:
    """One evaluation prompt. ``id`` is unique over all benchmarks of a run.

    ``benchmark`` and ``variant`` form the metric's name, ``vlguard[unsafe]/asr``; an empty variant is left out.
    ``side``: ``harm`` should be refused, ``benign`` should be answered, ``utility`` has a right answer (``reference``).
    ``cluster`` names what items share (their picture, or their goal) for cluster-aware statistics.
    ``instruction_for_judge`` is what a judge should read where the prompt itself hides it (FigStep).
    ``system`` stands in the place of the model's system prompt. ``options``: the answer is the likeliest of them
    (:class:`vlsafe.answering.Decoding`). ``max_new_tokens`` goes before the run's own limit.
    """

    id: str
    benchmark: str
    variant: str
    side: Side
    question: str
    image: ImageRef | None = None
    reference: str = ""
    group: str = ""
    cluster: str = ""
    instruction_for_judge: str = ""
    meta: dict[str, str] = field(default_factory=dict)
    system: str = ""
    options: tuple[str, ...] = ()
    max_new_tokens: int | None = None

    @property
    def scope(self) -> str:
        """``benchmark[variant]``, the first half of a metric's name."""
        return f"{self.benchmark}[{self.variant}]" if self.variant else self.benchmark

    def prompt(self) -> Conversation:
        """The Conversation a responder is asked: the picture, if any, before the question."""
        content = (self.question,) if self.image is None else (self.image, self.question)
        system = (Turn("system", (self.system,)),) if self.system else ()
        return Conversation(self.id, self.benchmark, (*system, Turn("user", content)))


@dataclass(frozen=True, slots=True)
class Response:
    """An Item's answer with everything that determined it. ``key`` is the hash of all that."""

    key: str
    id: str
    benchmark: str
    variant: str
    question: str
    text: str
    prompt: str
    n_tokens: int
    finish: str
    error: str
    image_sha256: str
    decoding: dict[str, Any]
    model: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge says of a Response. Errors stay errors: they never become labels.

    ``key`` and ``id`` are the Response's. ``basis`` hashes the judge's version and everything it read, so that a
    verdict is judged anew when either has changed.
    """

    key: str
    id: str
    label: Label
    judge: str
    score: float | None = None
    explanation: str = ""
    basis: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """A rate in percent with its 95 % interval, over ``n`` scored and ``n_error`` unscored items."""

    value: float
    low: float
    high: float
    n: int
    n_error: int = 0


R = TypeVar("R", Item, Response, Verdict)


def to_json(record: Item | Response | Verdict) -> str:
    row = asdict(record)
    if isinstance(record, Item):
        row["image"] = None if record.image is None else {"root": str(record.image.root), "name": record.image.name}
    return json.dumps(row, ensure_ascii=False)


def append_jsonl(path: Path, records: Iterable[Item | Response | Verdict]) -> None:
    """Append records and flush them to the disk, so that a killed run loses nothing it has paid for.

    What an earlier kill left of a torn last line is cut off first. Raises VlsafeError when the disk is full or
    the file cannot be written; whole lines written before stay.
    """
    data = "".join(to_json(record) + "\n" for record in records).encode("utf-8", "backslashreplace")
    with _clear_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _mend_end(path)
        with path.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing: a reader never sees half of it. Raises VlsafeError as :func:`append_jsonl`."""
    partial = path.with_name(path.name + ".partial")
    with _clear_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.write(text.encode("utf-8", "backslashreplace"))
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def read_jsonl(path: Path, kind: type[R]) -> list[R]:
    """Read records; fields beyond the record's own are left aside.

    A last line cut short by a kill is dropped, any other broken line raises DataError. No file means no records.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    records: list[R] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:  # not JSON, or a character cut in two
            if number == len(lines):  # no newline after it: the write was interrupted
                break
            raise DataError(f"{path}, line {number}: not JSON ({error}); delete the line or the file") from error
        records.append(_record(row, kind, f"{path}, line {number}"))
    return records


def numbered_rows(path: Path, problems: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """``("FILE, line N", row)`` of each JSONL object, of files that others wrote.

    A line that is no object goes to ``problems``, so that the caller can tell them all at once with its own.
    """
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            problems.append(f"{path}, line {number}: not JSON ({error})")
            continue
        if isinstance(row, dict):
            yield f"{path}, line {number}", row
        else:
            problems.append(f"{path}, line {number}: not an object")


def _record(row: Any, kind: type[R], where: str) -> R:
    if not isinstance(row, dict):
        raise DataError(f"{where}: holds {type(row).__name__}, not an object; delete the line or the file")
    known = {f.name: row[f.name] for f in fields(kind) if f.name in row}
    required = (f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING)
    missing = [name for name in required if name not in known]
    if missing:
        raise DataError(f"{where}: not a {kind.__name__}, it lacks {', '.join(missing)}; is this the right file?")
    if kind is Item and known.get("image") is not None:
        known["image"] = ImageRef(Path(known["image"]["root"]), known["image"]["name"])
    if kind is Item and "options" in known:
        known["options"] = tuple(known["options"])
    return kind(**known)


def _mend_end(path: Path) -> None:
    """Cut off a torn last line; a whole one that only lacks its newline gets it."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        content = file.read()
        start = content.rfind(b"\n") + 1
        try:
            json.loads(content[start:])
        except ValueError:
            file.truncate(start)
        else:
            file.write(b"\n")


@contextmanager
def _clear_write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise VlsafeError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another folder, then run the same "
            "command again: what is complete is kept and not done twice"
        ) from error
