"""Tables of swappable parts: an exact name -> the part. Unknown and duplicate names are refused."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator
from typing import Any

from vlsafe.errors import ConfigError


class Table:
    """Names of one kind of part, each either the part itself or ``"module:attribute"`` to import it from.

    Import paths keep start-up fast: a part is imported when it is asked for, not when the table is.

    >>> projectors = Table("projector", linear="vlsafe.models.projectors:linear")
    >>> projectors.names()
    ['linear']
    """

    def __init__(self, kind: str, **parts: Any) -> None:
        self.kind = kind
        self._parts: dict[str, Any] = dict(parts)

    def add(self, name: str, part: Any) -> None:
        """Register a part of your own. Raises ConfigError when the name is taken."""
        if name in self._parts:
            raise ConfigError(f"{self.kind} {name!r} is already registered; choose another name")
        self._parts[name] = part

    def names(self) -> list[str]:
        return sorted(self._parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def __getitem__(self, name: str) -> Any:
        if name not in self._parts:
            near = difflib.get_close_matches(name, self._parts, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"unknown {self.kind} {name!r}.{hint} Valid names: {', '.join(self.names())}")
        part = self._parts[name]
        if isinstance(part, str):
            module, _, attribute = part.partition(":")
            part = getattr(importlib.import_module(module), attribute)
        return part
