"""Errors that a user can mend: each says what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class VlsafeError(Exception):
    """Something the user can mend. The command line prints its words without a traceback.

    Several problems are reported at once, one a line, so that nobody mends them one run at a time.
    """

    exit_status = 1

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__(_listed(self.problems))


class ConfigError(VlsafeError):
    """The request itself is wrong: a name, a key, a value or a combination. Exit status 2."""

    exit_status = 2


class DataError(VlsafeError):
    """Data that cannot be used: each problem names the file, the record and the reason."""


class MissingDataError(DataError):
    """Data that is not there at all: each problem names the file and how to get it."""


def together(*checks: Callable[[], Any]) -> None:
    """Run every check, and tell what all of them found in one error.

    Raises ConfigError where one of them did, else DataError; what is no VlsafeError is raised as it is.
    """
    found: list[VlsafeError] = []
    for check in checks:
        try:
            check()
        except VlsafeError as error:
            found.append(error)
    if len(found) == 1:
        raise found[0]
    if found:
        kind = ConfigError if any(isinstance(error, ConfigError) for error in found) else DataError
        raise kind(list(dict.fromkeys(problem for error in found for problem in error.problems)))


def _listed(problems: Sequence[str], most: int = 20) -> str:
    if len(problems) == 1:
        return problems[0]
    lines = [f"{len(problems)} problems:", *(f"  - {problem}" for problem in problems[:most])]
    if len(problems) > most:
        lines.append(f"  ... and {len(problems) - most} more")
    return "\n".join(lines)
