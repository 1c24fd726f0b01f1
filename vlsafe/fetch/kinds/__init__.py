"""How each kind of asset is obtained: one file a kind, each ``obtain(asset, downloads, raw, progress) -> facts``.

``downloads`` keeps what an interrupted fetch can go on from; ``raw`` receives the parts under their final names;
``facts`` is what the manifest should say beyond the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.progress import Progress

from vlsafe.fetch.asset import Asset
from vlsafe.table import Table

Obtain = Callable[[Asset, Path, Path, Progress], dict[str, str]]

KINDS = Table(
    "kind of asset",
    **{
        "package": "vlsafe.fetch.kinds.package:obtain",
        "url": "vlsafe.fetch.kinds.url:obtain",
        "hub-model": "vlsafe.fetch.kinds.hub:obtain",
        "hub-dataset": "vlsafe.fetch.kinds.hub:obtain",
        "drawn": "vlsafe.fetch.kinds.drawn:obtain",
    },
)
