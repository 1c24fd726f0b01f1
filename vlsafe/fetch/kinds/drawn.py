"""Assets that the project makes itself, the same bytes on every machine."""

from __future__ import annotations

import shutil
from pathlib import Path

from rich.progress import Progress

from vlsafe.fetch.asset import Asset


def obtain(asset: Asset, downloads: Path, raw: Path, progress: Progress) -> dict[str, str]:
    """Draw afresh: half-drawn folders are not worth resuming."""
    from vlsafe.data.drawn import build  # late: drawing needs pillow and the data package

    task = progress.add_task(f"{asset.name}: drawing", total=None)
    shutil.rmtree(raw, ignore_errors=True)
    raw.mkdir(parents=True)
    build(raw)
    progress.remove_task(task)
    return {}
