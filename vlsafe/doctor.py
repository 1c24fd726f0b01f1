"""The verb ``doctor``: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from vlsafe import __version__, environment
from vlsafe.fetch import manifest
from vlsafe.fetch.catalogue import CATALOGUE, GROUPS
from vlsafe.fetch.locate import default_cache

OPTIONAL = {
    "gguf": "pip install 'vlsafe[small]', for the language model of `vlsafe fetch small`",
    "sentencepiece": "pip install 'vlsafe[sentencepiece]', for Vicuna and original LLaVA (tokenizer.model alone)",
    "flash-attn": "pip install --no-build-isolation 'vlsafe[flash]', on a CUDA machine",
    "torchvision": "pip install 'vlsafe[vision]', for processors that also handle video",
}

COLUMNS_WITHOUT_TERMINAL = 160  # commands to copy should not be wrapped in a log


class Row(NamedTuple):
    name: str
    found: str
    remedy: str = ""
    style: str = ""


def main(argv: list[str]) -> int:
    """Print one table; the status is 1 when something that vlsafe cannot do without is missing."""
    options = _parser().parse_args(argv)
    versions = environment.package_versions()
    missing = [name for name, version in versions.items() if version is None and name not in OPTIONAL]
    sections = [list(_package_rows(versions))]
    if not missing:  # what follows imports them
        sections += [list(_machine_rows(environment.describe())), list(_asset_rows(options.cache.expanduser()))]
    _print(sections)
    if missing:
        print(f"missing: {', '.join(missing)}; run: pip install vlsafe  (in a checkout: make quickstart)")
    return 1 if missing else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vlsafe doctor",
        description="Reads: this machine and the cache of fetched assets. Writes: a table on standard output. "
        "Exit status 1 when something needed is missing.",
        allow_abbrev=False,
    )
    parser.add_argument("--cache", type=Path, default=default_cache(), metavar="DIR", help="where assets live")
    return parser


def _print(sections: list[list[Row]]) -> None:
    table = Table(title=f"vlsafe {__version__}", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for rows in sections:
        for row in rows:
            table.add_row(row.name, row.found, row.remedy, style=row.style)
        table.add_section()
    width = None if sys.stdout.isatty() else COLUMNS_WITHOUT_TERMINAL
    Console(width=width, markup=False, highlight=False).print(table)


def _package_rows(versions: dict[str, str | None]) -> Iterator[Row]:
    for name, version in versions.items():
        if version is None and name in OPTIONAL:
            yield Row(name, "not installed", OPTIONAL[name])
        elif version is None:
            yield Row(name, "missing", f"pip install {name}", "red")
        elif name == "torchvision" and (trouble := _torchvision_trouble()):
            yield Row(name, f"{version}: {trouble}", "uninstall it, or install the build that fits this torch", "red")
        else:
            yield Row(name, version)


def _torchvision_trouble() -> str:
    """A torchvision built for another torch cannot be imported, and takes transformers' image processors with it."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError) as error:
        return str(error)
    return ""


def _machine_rows(facts: dict[str, Any]) -> Iterator[Row]:
    from vlsafe.strategies.attention import Runtime, choose

    cpu, gpu = facts["cpu"], facts["gpu"]
    yield Row("python", f"{facts['python']} on {facts['platform']}")
    yield Row("cpu", f"{cpu['cores']} cores ({cpu['machine']}, {cpu['instructions']}), {cpu['memory_gib']} GiB")
    for device in gpu["devices"]:
        yield Row("gpu", f"{device['name']}, {device['memory_gib']} GiB (CUDA {gpu['cuda']})")
    if not gpu["devices"]:
        yield Row("gpu", "Apple MPS" if gpu["mps"] else "none", "small models train without; 7B ones need CUDA")
    usable = [name for name, can_run in facts["attention"].items() if can_run]
    half, full = (choose("auto", Runtime.here(dtype)) for dtype in ("bfloat16", "float32"))
    taken = full if half == full else f"{half} in half precision where the model can, else {full}"
    yield Row("attention", f"auto takes {taken}", f"usable: {', '.join(usable)}")


def _asset_rows(cache: Path) -> Iterator[Row]:
    from huggingface_hub import get_token

    if get_token() is None:
        yield Row("hub token", "none", "`hf auth login`, for gated data and models only")
    else:
        yield Row("hub token", "yes")
    yield Row("cache", str(cache), f"{_free_gib(cache):.0f} GiB free")
    states = {name: manifest.damage(CATALOGUE[name], CATALOGUE[name].folder(cache)) for name in CATALOGUE}
    for name, trouble in states.items():
        if not trouble:
            yield Row(f"  {name}", "fetched", style="green")
        elif name in GROUPS["small"]:
            yield Row(f"  {name}", trouble, "vlsafe fetch small", "yellow")
        elif CATALOGUE[name].folder(cache).exists():
            yield Row(f"  {name}", trouble, f"vlsafe fetch {name}", "yellow")
    others = sum(bool(trouble) and name not in GROUPS["small"] for name, trouble in states.items())
    if others:
        yield Row("  others", f"{others} not fetched", "vlsafe fetch --list")


def _free_gib(folder: Path) -> float:
    """Free space where ``folder`` is or would be made."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free / 2**30
