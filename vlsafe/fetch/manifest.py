"""``fetched.json`` in an asset's folder: what it is and what files it holds. An asset is done when this matches."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vlsafe.fetch.asset import Asset, FetchError

FILE_NAME = "fetched.json"


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identity(asset: Asset) -> dict[str, Any]:
    """What the content of the folder depends on: a change of it makes an old folder stale."""
    drawing = {"drawing": _code_hash(asset.where)} if asset.kind == "drawn" else {}
    return drawing | {
        "name": asset.name,
        "kind": asset.kind,
        "where": asset.where,
        "revision": asset.revision,
        "sha256": asset.sha256,
        "parts": [asdict(part) for part in asset.parts],
        "convert": asset.convert,
        "conversion": asset.conversion,
    }


def _code_hash(package: str) -> str:
    """sha256 over a package's files: what code draws is stale as soon as the code is another."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FetchError(f"the package {package}, which draws this, is not installed; install vlsafe anew")
    root = Path(spec.origin).parent
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix != ".pyc"]
    lines = [f"{path.relative_to(root).as_posix()} {sha256_of(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def write(asset: Asset, folder: Path, facts: dict[str, str]) -> None:
    """Describe the finished ``folder``; ``facts`` is what only the fetch could learn (a hub commit)."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != FILE_NAME
    }
    content = {**identity(asset), "licence": asset.licence, "facts": facts, "files": files}
    (folder / FILE_NAME).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def remove(folder: Path) -> None:
    """Take away what a fetch put into ``folder``, and nothing else."""
    try:
        names = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))["files"]
    except (FileNotFoundError, ValueError):
        names = {}
    for name in [*names, FILE_NAME]:
        (folder / name).unlink(missing_ok=True)


def damage(asset: Asset, folder: Path, thorough: bool = False) -> str:
    """Why ``folder`` is not the finished asset, or ``""`` when it is.

    Sizes are always compared; hashes only when ``thorough``, which reads every byte.
    """
    try:
        content = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "is not fetched yet"
    except (json.JSONDecodeError, UnicodeDecodeError):
        return f"has a {FILE_NAME} that cannot be read"
    stale = [key for key, value in identity(asset).items() if content.get(key) != value]
    if stale:
        return f"was fetched as something else ({', '.join(stale)} changed)"
    for name, known in content["files"].items():
        path = folder / name
        if not path.is_file():
            return f"has lost {name}"
        if path.stat().st_size != known["bytes"] or (thorough and sha256_of(path) != known["sha256"]):
            return f"holds a changed {name}"
    return ""
