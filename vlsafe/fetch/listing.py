"""The catalogue as a printed table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vlsafe.fetch.asset import Asset
from vlsafe.fetch.catalogue import GROUPS
from vlsafe.fetch.manifest import FILE_NAME

WIDTH_WITHOUT_TERMINAL = 220  # a file or a pipe has no width of its own; rows stay on few lines


def print_catalogue(assets: Sequence[Asset], cache: Path) -> None:
    """Print one row an asset, then the groups, to standard output."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL, highlight=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("name", no_wrap=True)
    for column in ("kind", "from", "hash", "licence", "note", "here"):
        table.add_column(column, overflow="fold")
    for asset in assets:
        note = f"{asset.note}. GATED: {asset.gated}" if asset.gated else asset.note
        here = "yes" if (asset.folder(cache) / FILE_NAME).exists() else ""
        table.add_row(asset.name, asset.kind, asset.where, asset.check, asset.licence, note, here)
    console.print(table, markup=False)
    console.print(f"\nGroups of names (cache: {cache}):", markup=False)
    for group, names in GROUPS.items():
        console.print(f"  {group}: {', '.join(names)}", markup=False)
