"""A stage of a pipeline: an ordinary fit config with a header ``stage``, which says whose model it starts from."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vlsafe.errors import ConfigError

_KEYS = ("name", "after", "configs", "grid")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Stage:
    """One run of a pipeline.

    ``after`` names the stage whose exported model it starts from; None starts from what its config names. ``configs``
    are laid under ``content``, its own part of the config, in their order; ``flags`` are one point of its grid and are
    laid over everything.
    """

    name: str
    path: Path
    after: str | None = None
    configs: tuple[Path, ...] = ()
    content: Mapping[str, Any] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)

    def key(self, overlays: Sequence[Path], start: str | None) -> str:
        """What determines the run, in 64 characters: every config as parsed, so that a comment changes nothing, and
        ``start``, the fingerprint of the model that it starts from."""
        under = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in (*self.configs, *overlays)]
        parts = {"under": under, "content": self.content, "flags": self.flags, "start": start}
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def read_stages(paths: Sequence[Path]) -> list[Stage]:
    """The stages of these files, each after the one that it starts from, else in the files' order. A file with a
    ``grid`` (flag -> values) becomes one stage for each combination, ``<name>-00``, ``<name>-01``, ...

    Raises ConfigError naming every file and key that is wrong: no header, an unknown key, a name used twice, a stage
    that starts from none of these, from several or from itself, a config that is not there.
    """
    problems: list[str] = []
    stages: list[Stage] = []
    for path in paths:
        try:
            found = list(_read(path))
        except ConfigError as error:
            problems += error.problems
            continue
        taken = {stage.name: stage.path for stage in stages}
        problems += [f"{path}: stage {s.name} is in {taken[s.name]} too" for s in found if s.name in taken]
        stages += found
    if not problems:
        problems += _wrong_starts(stages)
    if problems:
        raise ConfigError(problems)
    return _in_order(stages)


def _read(path: Path) -> Iterator[Stage]:
    if not path.is_file():
        raise ConfigError(f"{path}: no such stage file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML ({error})") from error
    header = content.pop("stage", None) if isinstance(content, dict) else None
    if not isinstance(header, dict):
        raise ConfigError(f"{path}: a stage is a fit config with a header `stage: {{name: ..., after: ...}}`")
    problems = [f"{path}: {problem}" for problem in _wrong_header(header)]
    if "run_dir" in content:
        problems.append(f"{path}: run_dir is chosen by the pipeline (--out); leave it out")
    if problems:
        raise ConfigError(problems)
    configs = tuple(Path(each) for each in header.get("configs", ()))
    shared = (header.get("after"), configs, content)
    grid = header.get("grid")
    if grid is None:
        yield Stage(header["name"], path, *shared)
        return
    for number, values in enumerate(itertools.product(*grid.values())):
        yield Stage(f"{header['name']}-{number:02d}", path, *shared, dict(zip(grid, values, strict=True)))


def _wrong_header(header: Mapping[str, Any]) -> Iterator[str]:
    for key in header:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(_KEYS)}"
            yield f"stage has an unknown key {key!r}. {hint}"
    if not _NAME.fullmatch(str(header.get("name", ""))):
        yield f"stage.name is {header.get('name')!r}, must be a folder's name: letters, digits, '_', '-', '.'"
    configs = header.get("configs", [])
    if not isinstance(configs, list):
        yield "stage.configs must be a list of the configs that are laid under this one"
    else:
        yield from (f"stage.configs: {each} is not there" for each in configs if not Path(each).is_file())
    grid = header.get("grid", {"seed_everything": [0]})
    if not isinstance(grid, dict) or not grid or not all(isinstance(v, list) and v for v in grid.values()):
        yield "stage.grid must be a mapping of flags to lists of values"
    elif any(None in values for values in grid.values()):
        yield "stage.grid: null would reach the command as the text None; write a stage of its own"


def _wrong_starts(stages: Sequence[Stage]) -> Iterator[str]:
    starts = {stage.name: stage.after for stage in stages}
    gridded = {stage.name.rpartition("-")[0] for stage in stages if stage.flags}
    for path, after in dict.fromkeys((stage.path, stage.after) for stage in stages):
        if after in gridded:
            yield f"{path}: stage.after is {after}, which is many runs; name one, such as {after}-00"
        elif after is not None and after not in starts:
            yield f"{path}: stage.after is {after}, which is none of these stages: {', '.join(starts)}"
    for stage in stages:
        seen, at = {stage.name}, starts[stage.name]
        while at in starts and at not in seen:
            seen.add(at)
            at = starts[at]
        if at == stage.name:
            yield f"{stage.path}: stage {stage.name} starts from itself, by way of the stages after it"


def _in_order(stages: Sequence[Stage]) -> list[Stage]:
    ordered: dict[str, Stage] = {}
    while len(ordered) < len(stages):
        ordered |= {s.name: s for s in stages if s.after is None or s.after in ordered}
    return list(ordered.values())
