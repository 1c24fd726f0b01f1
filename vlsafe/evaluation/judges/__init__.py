"""Judges by their full names, such as ``keyword:vlsafe`` or ``guard:llama-guard-3:MODEL``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentError, ArgumentParser

from vlsafe.errors import ConfigError
from vlsafe.evaluation.judges.base import Judge
from vlsafe.evaluation.pairs import PairJudge
from vlsafe.table import Table

if TYPE_CHECKING:
    from vlsafe.evaluation.judges.api import ApiGrader

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


PAIR_JUDGES = Table("pair judge", **{"api:*": "vlsafe.evaluation.judges.api:ApiPairJudge"})
"""As JUDGES, of judges that say which of two answers is better."""


GRADERS = Table("grader", **{"api:*": "vlsafe.evaluation.judges.api:ApiGrader"})
"""Graders of open answers against a right one; names as those of judges."""


def judge_named(spec: str | Mapping[str, Any]) -> Judge:
    """The judge of that name, or of ``{name: ..., **options}`` with the options of its class.

    Nothing is loaded or asked before the first response is judged. Raises ConfigError, listing the valid names or
    options, for an unknown one.
    """
    judge: Judge = _named(spec, JUDGES)
    return judge


def pair_judge_named(spec: str | Mapping[str, Any]) -> PairJudge:
    """As :func:`judge_named`, of the pair judges."""
    judge: PairJudge = _named(spec, PAIR_JUDGES)
    return judge


def grader_named(spec: str | Mapping[str, Any]) -> ApiGrader:
    """As :func:`judge_named`, of the graders."""
    grader: ApiGrader = _named(spec, GRADERS)
    return grader


def _named(spec: str | Mapping[str, Any], table: Table) -> Any:
    options = {"name": spec} if isinstance(spec, str) else dict(spec)
    if "name" not in options:
        raise ConfigError(f"{table.kind} {spec!r} has no name; valid names: {', '.join(table)}")
    name = str(options.pop("name"))
    kind, _, rest = name.partition(":")
    if f"{kind}:*" not in table or (name in table and rest != "*"):
        make, given = table[name], list[str]()
    elif rest not in ("", "*"):
        make, given = table[f"{kind}:*"], [rest]
    else:
        raise ConfigError(f"{table.kind} {name!r} must say which, as in {kind}:NAME; docs/judges.md shows each kind")
    return make(*given, **_checked(name, make, len(given), options))


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
