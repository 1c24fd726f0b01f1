"""Judges by their full names, such as ``keyword:vlsafe`` or ``guard:llama-guard-3:MODEL``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from vlsafe.errors import ConfigError
from vlsafe.evaluation.judges.base import Judge
from vlsafe.table import Table

DEFAULT_JUDGE = "keyword:vlsafe"


def _keyword(list_name: str) -> Judge:
    from vlsafe.evaluation.judges.keyword import KeywordJudge

    return KeywordJudge(list_name)


_KEYWORD_LISTS = ("gcg", "vlguard", "vlsafe", "xstest")
_judges: dict[str, Any] = {f"keyword:{name}": partial(_keyword, name) for name in _KEYWORD_LISTS}
_judges |= {
    "api:*": "vlsafe.evaluation.judges.api:ApiJudge",
    "classifier:*": "vlsafe.evaluation.judges.classifier:ClassifierJudge",
    "guard:*": "vlsafe.evaluation.judges.guard:GuardJudge",
}

JUDGES = Table("judge", **_judges)
"""Full name -> a callable that makes the judge. A name that ends in ``*`` stands for all that begin like it; what they
have in its place is the callable's first argument. ``JUDGES.add(name, make)`` registers your own."""


def judge_named(spec: str | Mapping[str, Any]) -> Judge:
    """The judge of that name, or of ``{name: ..., **options}`` with the options of its class.

    Nothing is loaded or asked before the first response is judged. Raises ConfigError, listing the valid names or
    options, for an unknown one.
    """
    options = {"name": spec} if isinstance(spec, str) else dict(spec)
    if "name" not in options:
        raise ConfigError(f"judge {spec!r} has no name; valid names: {', '.join(JUDGES)}")
    name = str(options.pop("name"))
    kind, _, rest = name.partition(":")
    if f"{kind}:*" not in JUDGES or (name in JUDGES and rest != "*"):
        make, given = JUDGES[name], list[str]()
    elif rest not in ("", "*"):
        make, given = JUDGES[f"{kind}:*"], [rest]
    else:
        raise ConfigError(f"judge {name!r} must say which, as in {kind}:NAME; docs/judges.md shows each kind")
    judge: Judge = make(*given, **_checked(name, make, len(given), options))
    return judge


def _checked(name: str, make: Callable[..., Judge], given: int, options: dict[str, Any]) -> dict[str, Any]:
    """The options by the names and types of the signature, as everywhere on the command line."""
    if not options:
        return {}
    parser = ArgumentParser(exit_on_error=False)
    known = parser.add_class_arguments(make, skip={given}) if isinstance(make, type) else []
    unknown = sorted(options.keys() - set(known))
    if unknown:
        valid = f"its options: {', '.join(known)}" if known else "it takes none"
        raise ConfigError(f"judge {name!r} has no option {', '.join(unknown)}; {valid}")
    try:
        values = parser.parse_object(options).as_dict()
    except ArgumentError as error:
        raise ConfigError(f"judge {name!r}: {error}") from error
    return {key: values[key] for key in options}
