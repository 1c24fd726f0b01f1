"""Typed access to the fields of one record. Every wrong field is noted, so that all are reported at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from vlsafe.conversation import ImageRef, Turn
from vlsafe.data.images import name_problem
from vlsafe.data.problems import REPR, BadRecord


class Fields:
    """The fields of a record. Getters note what is wrong and return an empty value; :meth:`done` raises it all."""

    def __init__(self, row: Any) -> None:
        self.reasons: list[str] = []
        self.row: dict[str, Any] = row if isinstance(row, dict) else {}
        if not isinstance(row, dict):
            self.note(f"a record must be a JSON object, not {_shown(row)}")

    def note(self, reason: str) -> None:
        self.reasons.append(reason)

    def done(self) -> None:
        """Raises BadRecord when anything was noted."""
        if self.reasons:
            raise BadRecord(self.reasons)

    def text(self, key: str, *, empty: bool = False, optional: bool = False) -> str:
        """Text as stored. Text of white space only counts as empty. An absent or null optional field is ``""``."""
        if optional and self.row.get(key) is None:
            return ""
        if key not in self.row:
            return self._missing(key)
        return self.check_text(self.row[key], repr(key), empty=empty or optional)

    def check_text(self, value: Any, what: str, *, empty: bool = False) -> str:
        """``value`` when it is text that can be trained on; ``what`` names it in the noted reason."""
        if not isinstance(value, str):
            self.note(f"{what} must be text, not {_shown(value)}")
        elif not empty and not value.strip():
            self.note(f"{what} is empty; it must hold text")
        elif not _encodable(value):
            self.note(f"{what} holds half of a Unicode surrogate pair, which cannot be encoded; rewrite it as UTF-8")
        else:
            return value
        return ""

    def flag(self, key: str) -> bool:
        value = self.row.get(key)
        if key not in self.row:
            self._missing(key)
        elif not isinstance(value, bool):
            self.note(f"{key!r} must be true or false, not {_shown(value)}")
        return value is True

    def items(self, key: str, *, optional: bool = False) -> list[Any]:
        value = self.row.get(key)
        if isinstance(value, list):
            return value
        if key not in self.row and not optional:
            self._missing(key)
        elif value is not None or not optional:
            self.note(f"{key!r} must be a list, not {_shown(value)}")
        return []

    def identity(self, index: int, key: str = "id") -> str:
        """The record's id, a text or an integer; records without one are named by their index."""
        value = self.row.get(key, index)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self.check_text(value, repr(key))

    def plain(self, key: str) -> str:
        """A single value as text: what a tag may be."""
        value = self.row[key]
        if isinstance(value, dict | list | bytes):
            self.note(f"{key!r} must be a single value to be a tag, not {_shown(value)}")
            return ""
        return self.check_text(str(value), repr(key), empty=True)

    def image(self, root: Path, name: Any, what: str = "'image'") -> ImageRef:
        """A reference to a picture of ``root``; that it exists is checked for all records together."""
        name = self.check_text(name, what)
        problem = name_problem(name) if name else ""
        if problem:
            self.note(f"{what} {REPR.repr(name)} {problem}; it must be the name of a picture inside {root}")
        return ImageRef(root, name)

    def check_order(self, turns: Sequence[Turn], answered: bool = True) -> None:
        """At most one system turn, first; then user and assistant in turns; the last word is the assistant's, unless
        the last question need not be ``answered``."""
        roles = [turn.role for turn in turns]
        spoken = roles[1:] if roles[:1] == ["system"] else roles
        pairs = len(spoken) // 2 if answered else (len(spoken) + 1) // 2
        if not spoken or spoken != (["user", "assistant"] * pairs)[: len(spoken)]:
            self.note(
                f"the messages go {', '.join(roles) or 'nowhere (there are none)'}; after at most one system message, "
                "user and assistant must alternate, from a user's question to an assistant's answer"
            )

    def _missing(self, key: str) -> str:
        found = ", ".join(map(str, islice(self.row, 30))) or "nothing"
        self.note(f"{key!r} is missing (found: {found}{', ...' if len(self.row) > 30 else ''})")
        return ""


def _encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: Any) -> str:
    """A JSON value's type and the beginning of its text."""
    text = REPR.repr(value)
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "null"}
    kind = names.get(type(value), "a number")
    return kind if value is None else f"{kind} ({text if len(text) <= 40 else text[:37] + '...'})"
