"""Finished runs read back from W&B: a project by its API, or the files that runs without a server left."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from vlsafe.errors import ConfigError, DataError
from vlsafe.studies.runs import CURVES, Run, flat

_BLOCK, _HEADER = 32768, 7
"""Bytes of a block of a W&B file and of the header of a piece; the file is a log in LevelDB's format, see
https://github.com/google/leveldb/blob/main/doc/log_format.md, behind a header of its own of seven bytes."""


def read_project(name: str, api: Any = None) -> list[Run]:
    """Every run of ``ENTITY/PROJECT`` that logged how it ended; the others are told on standard error.

    ``api`` is a ``wandb.Api``; by default one is made, with the account that ``wandb login`` has kept. Raises
    ConfigError for another form of name, DataError when no run can be read.
    """
    if name.count("/") != 1:
        raise ConfigError(f"wandb:{name}: name a project as wandb:ENTITY/PROJECT")
    if api is None:
        import wandb

        api = wandb.Api()
    found: list[Run] = []
    for run in api.runs(name):
        place = Path("wandb:") / name / run.id
        _add(found, place, run.name, dict(run.config), dict(run.summary_metrics), run.scan_history, run.url)
    return _some(found, f"wandb:{name}")


def read_offline(folder: Path) -> list[Run]:
    """The runs of the ``*.wandb`` files in ``folder`` at any depth. Raises DataError when there is none, or when one is
    no file of W&B."""
    found: list[Run] = []
    for path in sorted(folder.glob("**/*.wandb")):
        config, summary, history = offline_run(path)
        _add(found, path.parent, path.parent.name, config, summary, lambda rows=history: rows, "")  # type: ignore[misc]
    return _some(found, str(folder))


def offline_run(path: Path) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """Config, summary and history of one file. A file that a kill has cut off is read as far as it goes."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made when it is imported

    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    history: list[dict[str, Any]] = []
    for data in _records(path):
        record = Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            config |= _items(record.run.config.update)
        elif kind == "config":
            config |= _items(record.config.update)
        elif kind == "summary":
            summary |= _items(record.summary.update)
        elif kind == "history":
            history.append(_items(record.history.item))
    last = {name: value for row in history for name, value in row.items()}
    return config, last | summary, history


def _add(
    found: list[Run],
    place: Path,
    name: str,
    config: Mapping[str, Any],
    summary: Mapping[str, Any],
    history: Callable[[], Iterable[Mapping[str, Any]]],
    link: str,
) -> None:
    """The run as :class:`Run`, where it logged its rates at the end."""
    if "side/harm" not in summary or "side/benign" not in summary:
        Console(stderr=True).print(f"left out: {name} has logged no final rates; did it finish, with an evaluation?")
        return
    metrics = {key.removeprefix("final/"): {"after": {"value": v}} for key, v in summary.items() if key[:6] == "final/"}
    settings = {key: value for key, value in flat(config) if not key.startswith("_wandb")}
    report = {"judge": settings.get("evaluation.judge", "unknown"), "metrics": metrics}
    report["objective"] = {"value": summary.get("objective")}
    rates = (float(summary["side/harm"]), float(summary["side/benign"]), summary.get("side/utility"))
    found.append(Run(place, name, settings, report, *rates, _curves(history()), link))


def _curves(history: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    curves: dict[str, dict[int, float]] = {}
    for row in history:
        if "trainer/global_step" not in row:
            continue  # what is told once, at the end
        for name, value in row.items():
            if name.startswith(CURVES) and isinstance(value, int | float):
                curves.setdefault(name, {})[int(row["trainer/global_step"])] = float(value)
    return {name: sorted(points.items()) for name, points in curves.items()}


def _some(found: list[Run], where: str) -> list[Run]:
    if not found:
        raise DataError(f"{where}: no finished run of vlsafe with an evaluation")
    return found


def _items(items: Iterable[Any]) -> dict[str, Any]:
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def _records(path: Path) -> Iterator[bytes]:
    """The records of a log: pieces, each with a checksum, a length and a kind (whole, first, middle, last)."""
    content = path.read_bytes()
    if content[:4] != b":W&B":
        raise DataError(f"{path}: not a file of W&B; it begins with {content[:4]!r}")
    at, parts = _HEADER, b""
    while at + _HEADER <= len(content):
        room = _BLOCK - at % _BLOCK
        if room < _HEADER:
            at += room
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        piece = content[at + _HEADER : at + _HEADER + length]
        if kind == 0 or len(piece) < length:
            return
        parts = piece if kind in (1, 2) else parts + piece
        if kind in (1, 4):
            yield parts
        at += _HEADER + length
