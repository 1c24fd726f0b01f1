"""What the paper printed (``published.toml``), by name of model and method, in the terms of our metrics."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from vlsafe.errors import ConfigError
from vlsafe.evaluation.statistics import wilson


@dataclass(frozen=True, slots=True)
class Cell:
    """A printed number as our metric counts it, in percent. ``low`` and ``high`` are Wilson's 95 % interval for the
    set's ``n`` items, which the paper does not give; all three are None for a score that is no share. ``doubt`` says
    why the cell cannot be right, and is empty for the others."""

    value: float
    low: float | None
    high: float | None
    n: int | None
    table: str
    doubt: str = ""


def origin() -> str:
    return str(_content()["origin"])


def rows() -> list[str]:
    """Names of models and methods, such as ``llava-7b`` or ``llava-7b/post-hoc-lora``."""
    return list(dict.fromkeys(name for table in _content()["tables"] for name in table["rows"]))


def published(row: str, judge: str = "keyword:vlguard") -> dict[str, Cell]:
    """Full metric name -> the paper's cell of that model and method.

    ``judge`` is ours: under a Llama Guard the paper's second judge's cells are given (Table 14), else those of its
    phrase list. Raises ConfigError, listing the names, for an unknown row.
    """
    if row not in rows():
        raise ConfigError(f"the paper prints no {row!r}; it has: {', '.join(rows())}")
    content, theirs = _content(), "llama-guard" if judge.startswith("guard:llama-guard") else "keyword"
    doubts = {(each["table"], each["row"], each["column"]): each["why"] for each in content["doubtful"]}
    found: dict[str, Cell] = {}
    for table in content["tables"]:
        if row in table["rows"] and table["judge"] in ("", theirs):
            for name, value in zip(table["columns"], table["rows"][row], strict=True):
                column = content["columns"][name]
                cell = _cell(value, column, table["name"], doubts.get((table["name"], row, name), ""))
                found |= dict.fromkeys(column["metrics"], cell)
    return found


def _cell(printed: float, column: Mapping[str, Any], table: str, doubt: str) -> Cell:
    value = round(100 - printed, 2) if column.get("complement") else float(printed)
    if "n" not in column:
        return Cell(value, None, None, None, table, doubt)
    n = int(column["n"])
    low, high = wilson(round(value * n / 100), n)
    return Cell(value, 100 * low, 100 * high, n, table, doubt)


@cache
def _content() -> dict[str, Any]:
    return tomllib.loads(files("vlsafe.evaluation").joinpath("published.toml").read_text(encoding="utf-8"))
