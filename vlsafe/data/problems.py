"""What is wrong with records: collected over a whole file, told in one report, and refused or left out."""

from __future__ import annotations

import hashlib
import logging
import reprlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vlsafe.errors import DataError
from vlsafe.fetch.paths import cache_directory

log = logging.getLogger(__name__)

REPR = reprlib.Repr()
REPR.maxlevel, REPR.maxstring, REPR.maxlong, REPR.maxother = 3, 80, 80, 80
"""How values of a record are shown: a few characters of them, however long or deep they are."""

Policy = Literal["error", "skip"]

SHOWN, KEPT = 20, 10_000
"""Problems shown in a message, and listed in its file. What is beyond is counted only, so that a file of nothing but
malformed records takes no more memory than any other."""

LEAVE_OUT = "to leave these records out, counted and listed in the log, open the source with on_bad_record: skip"

LONGEST = 2000
"""Characters of one reason that are kept: it may quote a text of megabytes."""


class Malformed(NamedTuple):
    """What stands in the place of a record that could not be parsed, where the next one can still be found."""

    reason: str


class BadRecord(DataError):
    """One record that cannot be used, with every reason why."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__(reasons)
        self.reasons = list(reasons)


class LeftOut(BadRecord):
    """One record that its format allows, but of which nothing can be trained: no error, counted and listed."""

    def __init__(self, reason: str) -> None:
        super().__init__([f"left out: {reason}"])


def refuse_malformed(row: Any) -> Any:
    """The row itself. Raises BadRecord when it could not even be parsed."""
    if isinstance(row, Malformed):
        raise BadRecord([row.reason])
    return row


class BadRecords:
    """The malformed records of one file: ``file[index] (id): reason``, one line a reason. ``changes``: what of the
    others was not taken as it stands."""

    def __init__(self, path: Path, policy: Policy) -> None:
        self.path = path
        self.policy = policy
        self.changes = Changes(path)
        self.lines: list[str] = []
        self.count = 0
        self.remedies = [] if policy == "skip" else [LEAVE_OUT]
        self._shown: dict[str, str] = {}

    def add(self, index: int, row: Any, reasons: Iterable[str]) -> None:
        for reason in map(_shortened, reasons):
            line = f"{_of_record(self.path, index, row)}: {reason}"
            self.count += 1
            if len(self.lines) < KEPT:
                self.lines.append(line)
            if len(self._shown) < SHOWN:
                self._shown.setdefault(reason, line)

    def restore(self, lines: list[str], more: int) -> None:
        self.lines, self.count = list(lines), len(lines) + more
        self._shown = {line: line for line in lines[:SHOWN]}

    @property
    def stops(self) -> bool:
        return bool(self.count) and self.policy == "error"

    def done(self) -> None:
        """Raises DataError with every problem; where the policy is to skip, logs them. Logs the changes."""
        if self.stops:
            raise DataError(self._report())
        if self.count:
            log.warning("left out by on_bad_record: skip: %s", self._report())
        self.changes.report()

    def together_with(self, error: DataError) -> DataError:
        """One error for the malformed records so far and for what ended the reading."""
        return DataError([*self.lines, str(error)]) if self.count else error

    def _report(self) -> str:
        remedies = "".join(f"\n{remedy[0].upper()}{remedy[1:]}" for remedy in self.remedies)
        if self.count <= SHOWN:
            return str(DataError(self.lines)) + remedies
        whole = _listed(self.path, "bad_records", self.lines, self.count)
        first = "\n".join(f"  - {line}" for line in self._shown.values())
        more = f"  ... and {self.count - len(self._shown)} more"
        return f"{self.count} problems, listed in {whole}; the first of each kind:\n{first}\n{more}{remedies}"


class Changes:
    """Of one file: how many records were changed or left out by a rule of their format, and which.

    ``counts``: kind of change, in words -> records. These records are no errors: the trainer that the format comes
    from accepts them too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: Counter[str] = Counter()
        self.lines: list[str] = []

    def add(self, index: int, row: Any, kinds: Iterable[str]) -> None:
        for kind in kinds:
            self.counts[kind] += 1
            if len(self.lines) < KEPT:
                self.lines.append(f"{_of_record(self.path, index, row)}: {kind}")

    def state(self) -> dict[str, Any]:
        return {"counts": dict(self.counts), "lines": self.lines}

    def restore(self, state: dict[str, Any]) -> None:
        self.counts, self.lines = Counter(state["counts"]), list(state["lines"])

    def report(self) -> None:
        if not self.counts:
            return
        file = _listed(self.path, "changed_records", self.lines, self.counts.total())
        kinds = "; ".join(f"{kind}: {count:,}" for kind, count in self.counts.most_common())
        log.warning("%s: records not taken as they stand (listed in %s): %s", self.path, file, kinds)


class UniqueIds:
    """Ids made unique, the second ``x`` as ``x#2``; how many were changed is logged by :meth:`report`.

    Published sets do hold the same id twice: VLGuard's training file once, LLaVA's 665k mix for every picture that
    has several conversations. These are distinct samples, so they are kept rather than refused or merged.
    """

    def __init__(self, path: Path, known: Iterable[str] = ()) -> None:
        self._path = path
        self._ids = dict.fromkeys(known)
        self._last: Counter[str] = Counter()
        self._first: list[str] = []
        self._repeated = 0

    def unique(self, identity: str) -> str:
        candidate = identity
        while candidate in self._ids:
            self._last[identity] = max(self._last[identity], 1) + 1
            candidate = f"{identity}#{self._last[identity]}"
        if candidate != identity:
            self._repeated += 1
            self._first += [identity] if len(self._first) < 3 else []
        self._ids[candidate] = None
        return candidate

    def report(self) -> None:
        if self._repeated:
            first = ", ".join(self._first)
            log.warning("%s: %d repeated ids got a suffix (first: %s)", self._path, self._repeated, first)


def _of_record(path: Path, index: int, row: Any) -> str:
    """How a record is named: its file, its index, and its id where it has one."""
    identity = f" (id {_short(row['id'])})" if isinstance(row, dict) and "id" in row else ""
    return f"{path}[{index}]{identity}"


def _listed(path: Path, folder: str, lines: Sequence[str], count: int) -> Path:
    """The file of the cache directory that now holds ``lines``, the first of ``count`` on the records of ``path``."""
    name = f"{path.stem}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}.txt"
    whole = cache_directory() / folder / name
    whole.parent.mkdir(parents=True, exist_ok=True)
    beyond = [f"... and {count - len(lines)} more"] if count > len(lines) else []
    whole.write_text("\n".join([*lines, *beyond, ""]), encoding="utf-8", errors="backslashreplace")
    return whole


def _short(value: Any) -> str:
    text = REPR.repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _shortened(reason: str) -> str:
    return reason if len(reason) <= LONGEST else f"{reason[: LONGEST // 2]} ... {reason[-LONGEST // 2 :]}"
