"""The config that is rehearsed: the user's as parsed, with a few values replaced, each with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Change:
    """In the place of ``what`` there is something else (``by``), and ``why``; ``phase`` is the one that it is for."""

    phase: str
    what: str
    by: str
    why: str


class Draft:
    """A parsed config as plain mappings, and what was changed in it.

    Args:
        content: of the whole config, changed in place.

    ``phase`` is the one that changes are for until it is set anew.
    """

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        self.phase = "parse"
        self.changes: list[Change] = []
        self.not_rehearsed: list[str] = []

    def get(self, path: str, default: Any = None) -> Any:
        """The value at a dotted path; ``default`` where a part of the path is not there or null."""
        value: Any = self.content
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return default if value is None else value

    def put(self, path: str, value: Any, why: str = "") -> None:
        """Set the value at a path whose parents are there; with a ``why``, the change is told where it is one."""
        *parents, last = path.split(".")
        holder = self.content
        for key in parents:
            holder = holder[key]
        before, holder[last] = holder.get(last), value
        if why and before != value:
            self.tell(f"{shortened(path)} {_shown(before)}", _shown(value), why)

    def tell(self, what: str, by: str, why: str) -> None:
        change = Change(self.phase, what, by, why)
        if change not in self.changes:
            self.changes.append(change)

    def leave_out(self, what: str) -> None:
        """``what`` cannot be shown here."""
        if what not in self.not_rehearsed:
            self.not_rehearsed.append(what)


def classes(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in ``value`` that names a class, ``{class_path: ..., init_args: ...}``, outer ones first."""
    if isinstance(value, dict):
        if isinstance(value.get("class_path"), str):
            yield value
        for each in value.values():
            yield from classes(each)
    elif isinstance(value, list):
        for each in value:
            yield from classes(each)


def texts_changed(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of plain data in which every text is what ``change`` makes of it."""
    if isinstance(value, dict):
        return {key: texts_changed(each, change) for key, each in value.items()}
    if isinstance(value, list):
        return [texts_changed(each, change) for each in value]
    return change(value) if isinstance(value, str) else value


def shortened(path: str) -> str:
    return path.replace(".init_args", "")


def _shown(value: Any) -> str:
    if isinstance(value, dict) and "class_path" in value:
        return str(value["class_path"]).rpartition(".")[2]
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
