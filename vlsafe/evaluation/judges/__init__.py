"""Judges by their full names, such as ``keyword:vlsafe``."""

from __future__ import annotations

from functools import partial
from typing import Any

from vlsafe.evaluation.judges.base import Judge
from vlsafe.table import Table

DEFAULT_JUDGE = "keyword:vlsafe"


def _keyword(list_name: str) -> Judge:
    from vlsafe.evaluation.judges.keyword import KeywordJudge

    return KeywordJudge(list_name)


_KEYWORD_LISTS = ("gcg", "vlguard", "vlsafe", "xstest")
_judges: dict[str, Any] = {f"keyword:{name}": partial(_keyword, name) for name in _KEYWORD_LISTS}

JUDGES = Table("judge", **_judges)
"""Full name -> a callable without arguments that makes the judge. ``JUDGES.add(name, make)`` registers your own."""


def judge_named(name: str) -> Judge:
    """The judge of that name, ready to use. Raises ConfigError, listing the valid names, for an unknown one."""
    judge: Judge = JUDGES[name]()
    return judge
