"""Errors that a user can mend: each says what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Sequence


class VlsafeError(Exception):
    """Something the user can mend. The command line prints its words without a traceback."""

    exit_status = 1


class ConfigError(VlsafeError):
    """The request itself is wrong: a name, a key, a value or a combination. Exit status 2.

    Several problems are reported at once, one a line, so that nobody mends them one run at a time.
    """

    exit_status = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        super().__init__(_listed(problems))


class DataError(VlsafeError):
    """Data that cannot be used: each problem names the file, the record and the reason."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        super().__init__(_listed(problems))


def _listed(problems: str | Sequence[str], most: int = 20) -> str:
    if isinstance(problems, str):
        return problems
    if len(problems) == 1:
        return problems[0]
    lines = [f"{len(problems)} problems:", *(f"  - {problem}" for problem in problems[:most])]
    if len(problems) > most:
        lines.append(f"  ... and {len(problems) - most} more")
    return "\n".join(lines)
