"""Which runs shall be rehearsed: from configs, sweep files and stage files; and which of them starts from which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vlsafe.errors import ConfigError
from vlsafe.studies.pipeline import Pipeline
from vlsafe.studies.stage_file import read_stages
from vlsafe.studies.sweep_file import Parameter, read_sweep


@dataclass(frozen=True, slots=True)
class Asked:
    """One run: its configs and flags as ``fit`` takes them; ``makes`` is where it would leave its model, as others name
    it; ``starts_from`` the checkpoint that it names. Either is empty where its files do not say."""

    name: str
    argv: tuple[str, ...]
    makes: str = ""
    starts_from: str = ""


def asked(runs: Sequence[str], overlays: Sequence[str], flags: Sequence[str], folder: Path) -> list[Asked]:
    """The runs, each with ``overlays`` and ``flags`` laid over it.

    Args:
        runs: a config, several joined by commas, a sweep file (its first trial) or stage files of one pipeline (of a
            grid, the first). Without any, the overlays are the run.
        folder: where the configs of stages are written.

    Raises ConfigError for what is none of these.
    """
    over = [*(f"--config={path}" for path in overlays), *flags]
    if not runs:
        if not overlays:
            raise ConfigError("nothing to rehearse: name a config, --config C [--config OVERLAY]")
        return [_told(overlays[-1], over)]
    found: list[Asked] = []
    stages: list[Path] = []
    for run in runs:
        paths = run.split(",")
        content = _content(paths[-1])
        if len(paths) == 1 and "stage" in content:
            stages.append(Path(run))
        elif len(paths) == 1 and "parameters" in content:
            found.append(_first_trial(Path(run), over))
        else:
            found.append(_told(paths[-1], [*(f"--config={path}" for path in paths), *over]))
    return found + (_stages(stages, over, folder) if stages else [])


def _first_trial(path: Path, over: Sequence[str]) -> Asked:
    sweep = read_sweep(path)
    command = sweep.rendered({name: _first(parameter) for name, parameter in sweep.parameters.items()}, *over)
    if "fit" not in command:
        raise ConfigError(f"{path}: its command is no `fit`, so there is nothing to rehearse")
    return _told(f"{path}, first trial", command[command.index("fit") + 1 :])


def _first(parameter: Parameter) -> Any:
    return parameter.values[0] if parameter.values else parameter.low


def _stages(paths: Sequence[Path], over: Sequence[str], folder: Path) -> list[Asked]:
    pipeline = Pipeline(read_stages(paths), folder)
    found, seen = [], set()
    for stage in pipeline.stages:
        if stage.path in seen:
            continue  # another point of its grid
        seen.add(stage.path)
        into = pipeline.folder(stage.name)
        into.mkdir(parents=True)
        command = pipeline.command(stage, into)
        argv = [*command[command.index("fit") + 1 :], f"--run_dir={into / 'run'}", *over]
        found.append(_told(str(stage.path), argv))
    return found


def _told(name: str, argv: Sequence[str]) -> Asked:
    run_dir, checkpoint = "", ""
    for place, word in enumerate(argv):
        if word == "--config" or word.startswith("--config="):
            content = _content(word.partition("=")[2] or argv[place + 1])
            run_dir = content.get("run_dir") or run_dir
            checkpoint = _checkpoint(content) or checkpoint
        elif word.startswith("--run_dir="):
            run_dir = word.partition("=")[2]
    return Asked(name, tuple(argv), f"{run_dir}/model" if run_dir else "", checkpoint)


def _checkpoint(content: Mapping[str, Any]) -> str:
    value: Any = content
    for key in ("model", "init_args", "backbone", "init_args", "checkpoint"):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else ""


def _content(path: str) -> dict[str, Any]:
    """Of a YAML file; empty where it is none, which the parser tells in its own words."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}
