"""A balanced split as a folder in VLGuard's layout, the pictures linked, not copied."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from vlsafe.data.balance.rewriting import Balanced, balanced
from vlsafe.data.sources.rows import read_rows
from vlsafe.data.sources.vlguard import Split, read_records
from vlsafe.errors import ConfigError, DataError


def balance_folder(
    path: Path, split: Split, out: Path, same_request: bool = True, vary_refusals: bool = False
) -> Balanced:
    """Write ``<split>.json`` and ``balance.<split>.json`` (what was done, and the source's sha256) into ``out``.

    ``<split>/`` or ``<split>.zip`` becomes a link to the source's pictures where these are there. Raises ConfigError
    when ``out`` is the source itself or holds other pictures, DataError as :func:`read_records` and when writing fails.
    """
    if out.resolve() == path.resolve():
        raise ConfigError(f"--out is the source itself, {out}; choose another folder")
    read_records(path, split, check_images=False)  # raises with everything that is malformed
    file = path / f"{split}.json"
    result = balanced(list(read_rows(file)), same_request, vary_refusals)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    told = {"source": f"{split}.json", "source_sha256": digest, **result.summary}
    try:
        out.mkdir(parents=True, exist_ok=True)
        _write(out / f"{split}.json", json.dumps(result.rows, indent=1, ensure_ascii=False))
        _write(out / f"balance.{split}.json", json.dumps(told, indent=1))
        for name in (split, f"{split}.zip"):
            _link(path / name, out / name)
    except OSError as error:
        raise DataError(f"cannot write to {out}: {error.strerror or error}; choose another --out") from error
    return result


def _write(path: Path, text: str) -> None:
    """The whole file or nothing."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    os.replace(partial, path)


def _link(pictures: Path, link: Path) -> None:
    if not pictures.exists() or (link.is_symlink() and link.resolve() == pictures.resolve()):
        return
    if link.exists() or link.is_symlink():
        raise ConfigError(f"{link} is there and is not a link to {pictures}; remove it or choose another --out")
    link.symlink_to(pictures.resolve(), target_is_directory=pictures.is_dir())
