"""Under which terms a model or a data set stands, as far as what lies beside it says."""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub import metadata_load

from vlsafe.fetch.catalogue import ASSETS
from vlsafe.fetch.manifest import FILE_NAME

UNKNOWN = "not stated beside it; read its page before you publish"


def licence_of(place: str) -> str:
    """The licence of a folder, a file or a hub name: from the fetched asset that it lies in, from the model card
    beside it, or from the catalogue; in words that say so where none of them tells."""
    for asset in ASSETS:
        if place == asset.where:
            return asset.licence
    path = Path(place)
    for folder in (path, *path.parents) if path.exists() else ():
        if (folder / FILE_NAME).is_file():
            return str(json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))["licence"])
    card = (path if path.is_dir() else path.parent) / "README.md"
    facts = (metadata_load(card) if card.is_file() else None) or {}
    return str(facts.get("license_name") or facts.get("license") or UNKNOWN)


def shown(place: str) -> str:
    """A hub name as it is; of a folder or file only the last part, since a card is shared and paths name people."""
    return Path(place).name if Path(place).is_absolute() or Path(place).exists() else place
