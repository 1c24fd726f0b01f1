"""Where a source comes from: licence and gate by the fetch catalogue, and VLGuard's references for its win rate."""

from __future__ import annotations

import json
from pathlib import Path

from vlsafe.audit.exchanges import Audited
from vlsafe.audit.findings import Finding
from vlsafe.data.sources.rows import read_rows
from vlsafe.errors import DataError
from vlsafe.fetch.catalogue import CATALOGUE
from vlsafe.fetch.manifest import FILE_NAME
from vlsafe.fetch.paths import resolved

PUBLISHED_AS = {"vlguard": "vlguard", "easy_vqa": "easy-vqa", "alpaca": "alpaca", "llava": "llava-665k"}
"""Kind of source -> the asset whose format it is: all that is known of a folder that was not fetched by name."""

WIN_RATE_REFERENCES = "gpt4_safe_safes.json"
"""GPT-4V's answers to VLGuard's safe requests, published beside the test split to compare with."""


def licence_findings(source: Audited) -> list[Finding]:
    asset_name = _fetched_as(source)
    known = asset_name in CATALOGUE
    name = asset_name if known else PUBLISHED_AS.get(source.kind, "")
    n = len(source.records)
    if not name:
        what = f"not fetched by name and of a format that many sets use ({source.kind}); its licence is not known here"
        return [Finding("licence", "note", source.label, n, n, what)]
    asset = CATALOGUE[name]
    told = "fetched as" if known else "not fetched by name; if it is the set whose format it has,"
    licence = f"{told} {name} ({asset.where}): {asset.licence}"
    found = [Finding("licence", "note", source.label, n, n, licence)]
    if asset.gated:
        found.append(Finding("gated", "note", source.label, n, n, f"{told} {name} ({asset.where}): {asset.gated}"))
    return found


def win_rate_references(source: Audited) -> list[Finding]:
    """Empty references in VLGuard's published file, where it lies beside the test split.

    Raises DataError when the file is there and is not what it should be.
    """
    file = Path(resolved(source.path)) / WIN_RATE_REFERENCES
    if source.kind != "vlguard" or source.label != "test" or not file.is_file():
        return []
    empty: list[str] = []
    rows = read_rows(file)
    for index, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("output"), str):
            raise DataError(f"{file}[{index}]: a reference must hold text in 'output'; fetch the file again")
        if not row["output"].strip():
            empty.append(str(row.get("id", index)))
    if not empty:
        return []
    what = f"{len(empty)} of {len(rows)} references of the win rate are empty"
    return [Finding("empty_reference", "warning", WIN_RATE_REFERENCES, len(empty), len(rows), what, ids=empty)]


def _fetched_as(source: Audited) -> str:
    """The asset that a fetch wrote the source's folder as, by the file that it leaves there; empty without one."""
    if source.path.startswith("cache:"):
        return source.path.removeprefix("cache:").partition("/")[0]
    start = Path(resolved(source.path)).resolve()
    for folder in (start, *start.parents[:2]):
        try:
            content = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict):
            return str(content.get("name", ""))
    return ""
