"""Which checkpoint a name means: a folder, the hub's cache, what an earlier rehearsal has exported, or its family."""

from __future__ import annotations

import json
import re
from pathlib import Path

from huggingface_hub import snapshot_download

from vlsafe.errors import ConfigError, MissingDataError
from vlsafe.fetch.catalogue import CATALOGUE
from vlsafe.fetch.paths import resolved

SHAPES = Path(__file__).with_name("shapes")
"""Checkpoint folders without weights: the smallest shape of each family, with a tokenizer of one token a character."""
_NAMES: dict[str, str] = json.loads((SHAPES / "names.json").read_text(encoding="utf-8"))
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def folder_of(name: str, revision: str | None = None) -> Path | None:
    """The folder that holds the config.json of a checkpoint, on this machine; None where there is none. Nothing is
    downloaded."""
    try:
        path = Path(resolved(name))
    except MissingDataError:
        return None
    if (path / "config.json").is_file():
        return path
    if path.exists() or not _HUB_NAME.fullmatch(name):
        return None
    try:
        cached = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except OSError:
        return None
    return cached if (cached / "config.json").is_file() else None


def shape_of(name: str, otherwise: str, certain: bool = False) -> Path:
    """The smallest shape of the family that a name is known to be of; ``otherwise`` is that of a folder which is still
    to be written. Raises ConfigError for a name of the hub of which nothing is known here, unless it is ``certain``
    what the others are."""
    if name.startswith("cache:"):
        asset = name.removeprefix("cache:").partition("/")[0]
        name = str(CATALOGUE[asset].where) if name not in _NAMES else name
    if name in _NAMES:
        return SHAPES / _NAMES[name]
    if _HUB_NAME.fullmatch(name) and not certain:
        raise ConfigError(
            f"{name}: its config.json is not on this machine, and its family is not known here. Bring the small files: "
            f"`hf download {name} --include '*.json' --include '*.jinja' --include '*.model'`, and rehearse again"
        )
    return SHAPES / otherwise


def published(name: str) -> bool:
    """Whether it names an asset of `fetch` or a checkpoint of the hub, not a folder of this machine."""
    return name.startswith("cache:") or name in _NAMES or _HUB_NAME.fullmatch(name) is not None


def has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json"))
