"""A W&B sweep file, read as W&B's agent reads it, so that the same file runs with a server and without one."""

from __future__ import annotations

import difflib
import itertools
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from vlsafe.errors import ConfigError

METHODS = ("grid", "random", "bayes")
_KEYS = ("method", "metric", "command", "parameters", "early_terminate", "run_cap", "name", "description", "project")
_DISTRIBUTIONS = ("constant", "categorical", "int_uniform", "uniform", "q_uniform", "log_uniform_values")

Values = dict[str, Any]
"""Parameter, which is a flag of the command, -> its value in one trial."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One flag: either one of ``values`` (a single one is fixed) or a number from ``low`` to ``high``."""

    values: tuple[Any, ...] = ()
    low: float | int | None = None
    high: float | int | None = None
    step: float | None = None
    log: bool = False

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)


@dataclass(frozen=True, slots=True)
class SweepFile:
    """``goal`` is ``minimize`` or ``maximize``; ``early`` holds ``min_iter`` and ``eta``, or is None; ``run_cap`` is
    the most trials, or None."""

    path: Path
    method: str
    metric: str
    goal: Literal["minimize", "maximize"]
    command: tuple[str, ...]
    parameters: dict[str, Parameter]
    early: dict[str, int] | None
    run_cap: int | None

    def grid(self) -> Iterator[Values]:
        """Every combination, the last parameter fastest."""
        choices = [parameter.values for parameter in self.parameters.values()]
        return (dict(zip(self.parameters, chosen, strict=True)) for chosen in itertools.product(*choices))

    def arguments(self, values: Mapping[str, Any]) -> list[str]:
        """The flags of a trial, written as W&B's agent writes them."""
        return [f"--{name}={value}" for name, value in values.items()]

    def rendered(self, values: Mapping[str, Any], *more: str) -> list[str]:
        """The command of a trial; ``more`` flags follow the sweep's own. The interpreter is the one that runs this."""
        filled: list[str] = []
        for piece in self.command:
            if piece == "${args}":
                filled += [*self.arguments(values), *more]
            elif piece == "${interpreter}":
                filled.append(sys.executable)
            elif piece != "${env}":  # it only finds the interpreter, whose path is known here
                filled.append(piece)
        return filled


def read_sweep(path: Path) -> SweepFile:
    """Raises ConfigError naming every key that is wrong; what W&B knows and we do not run is an error too."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such sweep file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML ({error})") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a sweep file is a mapping with method, metric, command and parameters")
    problems = [f"{path}: {problem}" for problem in _problems(content)]
    parameters: dict[str, Parameter] = {}
    for name, spec in (content.get("parameters") or {}).items():
        try:
            parameters[name] = _parameter(spec)
        except ValueError as error:
            problems.append(f"{path}: parameter {name!r}: {error}")
    if content.get("method") == "grid":
        ranged = [name for name, parameter in parameters.items() if not parameter.values]
        problems += [f"{path}: parameter {name!r}: a grid needs values, not a range" for name in ranged]
    if problems:
        raise ConfigError(problems)
    metric, early = content["metric"], content.get("early_terminate")
    bands = None if early is None else {"min_iter": early.get("min_iter", 1), "eta": early.get("eta", 3)}
    command = tuple(str(piece) for piece in content["command"])
    goal = metric.get("goal", "minimize")
    cap = content.get("run_cap")
    return SweepFile(path, content["method"], metric["name"], goal, command, parameters, bands, cap)


def _problems(content: dict[str, Any]) -> Iterator[str]:
    for key in content:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            yield f"unknown key {key!r}." + (f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(_KEYS)}")
    if content.get("method") not in METHODS:
        yield f"method is {content.get('method')!r}, must be one of {', '.join(METHODS)}"
    metric = content.get("metric")
    if not isinstance(metric, dict) or "name" not in metric:
        yield "metric must hold a name (and a goal, minimize or maximize)"
    elif metric.get("goal", "minimize") not in ("minimize", "maximize"):
        yield f"metric.goal is {metric['goal']!r}, must be minimize or maximize"
    command = content.get("command")
    if not isinstance(command, list) or "${args}" not in command:
        yield "command must be a list that holds ${args}"
    elif any(str(piece).startswith("${") and piece not in ("${env}", "${interpreter}", "${args}") for piece in command):
        yield "command may hold ${env}, ${interpreter} and ${args}, no other macro"
    elif command[-1] != "${args}" and "--config" in command[command.index("${args}") :]:
        yield "command: flags before a --config are overridden by it; put ${args} last"
    if not content.get("parameters"):
        yield "parameters is empty: name at least one flag"
    early = content.get("early_terminate")
    if early is not None and (early.get("type") != "hyperband" or early.keys() - {"type", "min_iter", "eta"}):
        yield "early_terminate: only type: hyperband with min_iter and eta is run without a server"


def _parameter(spec: Any) -> Parameter:
    """Raises ValueError in words."""
    if not isinstance(spec, dict):
        raise ValueError("must hold value, values, or min and max")
    if "parameters" in spec:
        raise ValueError("is nested; write flat dotted names, each a flag of the command")
    kind = spec.get("distribution")
    if kind is not None and kind not in _DISTRIBUTIONS:
        raise ValueError(f"distribution {kind!r} is not run without a server; use one of {', '.join(_DISTRIBUTIONS)}")
    unknown = spec.keys() - {"value", "values", "min", "max", "q", "distribution"}
    if unknown:
        raise ValueError(f"unknown key {', '.join(sorted(unknown))}")
    if "value" in spec or "values" in spec:
        values = tuple(spec["values"]) if "values" in spec else (spec["value"],)
        if not values:
            raise ValueError("values is empty")
        if "None" in map(str, values):
            raise ValueError("null reaches the command as the text None; leave the flag out, or write an overlay")
        json.dumps(values)
        return Parameter(values)
    if not {"min", "max"} <= spec.keys() or not spec["min"] < spec["max"]:
        raise ValueError("needs value, values, or min < max")
    low, high = spec["min"], spec["max"]
    whole = kind == "int_uniform" or (kind is None and isinstance(low, int) and isinstance(high, int))
    if not whole:
        low, high = float(low), float(high)
    log = kind == "log_uniform_values"
    if log and low <= 0:
        raise ValueError("log_uniform_values needs min > 0")
    return Parameter(low=low, high=high, step=float(spec.get("q", 1)) if kind == "q_uniform" else None, log=log)
