"""Suites: which benchmarks are asked together, with which variants and probes. A suite is a TOML file.

``paper``, ``quick`` and ``text`` are here; one of your own is a file of the same form::

    max_new_tokens = 256                 # of an answer, unless the benchmark or the command line says otherwise
    judge = "keyword:vlguard"            # these three, unless the command line says otherwise
    template = "llava_v1"                # for models whose own template opens an answer as this one does
    image_fit = "pad"                    # for those of them that are of LLaVA's kind; see vlsafe.protocol

    [[benchmarks]]
    benchmark = "xstest"                 # a name of the table; what follows are the arguments of its class
    path = "cache:xstest/xstest_prompts.csv"
    probes = ["image=blank"]             # see vlsafe.evaluation.probes
"""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from vlsafe.data.chat import TEMPLATES
from vlsafe.errors import ConfigError, DataError, MissingDataError, VlsafeError
from vlsafe.evaluation.benchmarks import BENCHMARKS
from vlsafe.evaluation.benchmarks.base import Benchmark
from vlsafe.evaluation.benchmarks.table import TableBenchmark, declared_table

MAX_NEW_TOKENS = 256
"""Of an answer, where neither the benchmark nor the suite says otherwise: the paper's protocol."""

_PROTOCOL = ("max_new_tokens", "judge", "template", "image_fit")


@dataclass(frozen=True, slots=True)
class Suite:
    """``rows``: for each benchmark its name in the table (``benchmark``), its ``probes`` and its class's arguments."""

    rows: tuple[Mapping[str, Any], ...]
    max_new_tokens: int = MAX_NEW_TOKENS
    judge: str | None = None
    template: str | None = None
    image_fit: str | None = None


def suite_names() -> list[str]:
    """The suites that are shipped."""
    here = files("vlsafe.evaluation.suites").iterdir()
    return sorted(each.name.removesuffix(".toml") for each in here if each.name.endswith(".toml"))


def suite_named(name: str) -> Suite:
    """A shipped suite, or the file of that name; paths in it are relative to it. Raises ConfigError when there is
    none, or it is not of the form."""
    if name in suite_names():
        text, folder = files("vlsafe.evaluation.suites").joinpath(f"{name}.toml").read_text(encoding="utf-8"), None
    elif Path(name).is_file():
        text, folder = Path(name).read_text(encoding="utf-8"), Path(name).absolute().parent
    else:
        raise ConfigError(f"no suite {name!r}: neither a file nor one of {', '.join(suite_names())}")
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"suite {name}: not TOML ({error})") from error
    unknown = sorted(content.keys() - {"benchmarks", *_PROTOCOL})
    rows = content.get("benchmarks")
    if unknown or not isinstance(rows, list) or not all(isinstance(row, dict) and "benchmark" in row for row in rows):
        raise ConfigError(
            f"suite {name}: it must hold [[benchmarks]] with a `benchmark` each, and may say {', '.join(_PROTOCOL)}"
            + (f"; it knows no {', '.join(unknown)}" if unknown else "")
        )
    if folder is not None:
        rows = [row | {key: _relative(row[key], folder) for key in ("path", "pictures") if key in row} for row in rows]
    if content.get("template") is not None:
        TEMPLATES[content["template"]]  # refuses what it does not know
    if content.get("image_fit", "pad") != "pad":
        raise ConfigError(f"suite {name}: image_fit is {content['image_fit']!r}; it may be 'pad', or left out")
    return Suite(tuple(rows), **{key: content[key] for key in _PROTOCOL if key in content})


def opened(suite: Suite, data: Path | None, limit: int | None, skip_missing: bool) -> tuple[list[Benchmark], list[str]]:
    """The suite's benchmarks, their items read, and what ``skip_missing`` left out: one line each, with why.

    ``data``: sets that lie under their names in this folder are read there instead of from the cache. Raises one error
    with all that is wrong: ConfigError where a row is, else MissingDataError where files are only not there (it says
    how to get each), else DataError.
    """
    benchmarks: list[Benchmark] = []
    errors: list[VlsafeError] = []
    skipped: list[str] = []
    for row in suite.rows:
        try:
            benchmark = made(row, data, limit)
            benchmark.items()
            benchmarks.append(benchmark)
        except MissingDataError as error:
            told = [f"{row.get('name', row['benchmark'])}: {problem}" for problem in error.problems]
            skipped += told
            if not skip_missing:
                errors.append(MissingDataError(told))
        except VlsafeError as error:
            kind = ConfigError if isinstance(error, ConfigError) else DataError
            errors.append(kind([f"{row.get('name', row['benchmark'])}: {problem}" for problem in error.problems]))
    _raise(errors)
    if not benchmarks:
        raise MissingDataError(["every benchmark of the suite is missing:", *skipped])
    return benchmarks, skipped


def made(row: Mapping[str, Any], data: Path | None = None, limit: int | None = None) -> Benchmark:
    """The benchmark of one row. Raises ConfigError for an unknown name or argument."""
    arguments = {key: _placed(value, data) for key, value in row.items() if key not in ("benchmark", "probes")}
    kind = BENCHMARKS[row["benchmark"]]
    if limit is not None:
        arguments["limit"] = limit
    if kind is TableBenchmark:
        table = declared_table(arguments["path"], limit)
        return table.with_probes(row.get("probes", ()))
    known = inspect.signature(kind).parameters
    unknown = sorted(arguments.keys() - known.keys())
    if unknown or "path" not in arguments:
        raise ConfigError(
            f"benchmark {row['benchmark']!r} needs a path and takes {', '.join(known)}"
            + (f"; not {', '.join(unknown)}" if unknown else "")
        )
    benchmark: Benchmark = kind(**arguments)
    return benchmark.with_probes(row.get("probes", ()))


def _placed(value: Any, data: Path | None) -> Any:
    """``cache:NAME/inside`` as ``DATA/NAME/inside`` where the folder has NAME."""
    if data is None or not isinstance(value, str) or not value.startswith("cache:"):
        return value
    inside = value.removeprefix("cache:")
    return str(data / inside) if (data / inside.partition("/")[0]).exists() else value


def _relative(value: str, folder: Path) -> str:
    return value if value.startswith("cache:") else str(folder / value)


def _raise(errors: Sequence[VlsafeError]) -> None:
    for kind in (ConfigError, DataError):
        if any(type(error) is kind for error in errors):
            raise kind([problem for error in errors for problem in error.problems])
    if errors:
        *problems, last = (problem for error in errors for problem in error.problems)
        hint = "--skip-missing leaves out what is missing and lists it in the report"
        raise MissingDataError([*problems, f"{last}\n{hint}"])
