"""The verb ``data`` and its subverbs: data made from data."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import cast, get_args

from vlsafe.errors import ConfigError
from vlsafe.verbs import Verb

SUBVERBS: dict[str, Verb] = {
    "balance": Verb(
        "rewrite the requests of a VLGuard set so that their first word says nothing",
        "source -> VLGuard folder",
        "vlsafe.data_commands:balance_main",
    ),
    "manifest": Verb(
        "write down every record that a config's mixture may draw, with its hash, and their order",
        "config -> manifest.json",
        "vlsafe.data_commands:manifest_main",
    ),
    "index": Verb(
        "index large files now instead of at the first run",
        "sources -> index in the cache directory",
        "vlsafe.data_commands:index_main",
    ),
}


def main(argv: list[str]) -> int:
    """``data SUBVERB ...``. Raises VlsafeError; returns the exit status."""
    import importlib

    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return 0
    name, *rest = argv
    if name not in SUBVERBS:
        raise ConfigError(f"unknown subverb {name!r} of data; valid: {', '.join(SUBVERBS)}")
    module, _, function = SUBVERBS[name].target.partition(":")
    status: int = getattr(importlib.import_module(module), function)(rest)
    return status


def _usage() -> str:
    width = max(map(len, SUBVERBS))
    lines = ["usage: vlsafe data SUBVERB [options]", "", "subverbs:"]
    lines += [f"  {name:<{width}}  {verb.summary}  [{verb.reads_writes}]" for name, verb in SUBVERBS.items()]
    lines += ["", "In brackets: what each reads -> what it writes."]
    return "\n".join([*lines, "", "vlsafe data SUBVERB --help tells a subverb's options."])


def balance_main(argv: list[str]) -> int:
    """``data balance SOURCE --out DIR``. Raises VlsafeError; returns the exit status."""
    from vlsafe.data.balance import balance_folder
    from vlsafe.data.sources import parse_spec
    from vlsafe.data.sources.vlguard import Split
    from vlsafe.fetch.paths import resolved

    options = _balance_parser().parse_args(argv)
    source = {"split": "train", **parse_spec(options.source)}
    if source["kind"] != "vlguard":
        raise ConfigError(f"data balance rewrites VLGuard's schema; {options.source!r} is of kind {source['kind']!r}")
    if source["split"] not in get_args(Split):
        raise ConfigError(f"unknown split {source['split']!r} of VLGuard; valid splits: {', '.join(get_args(Split))}")
    split, out = cast(Split, source["split"]), options.out
    path = Path(resolved(source["path"]))
    result = balance_folder(path, split, out, options.same_request, options.vary_refusals)
    for name in ("records", "requests", "rewritten", "added_same_request", "refusals_varied"):
        print(f"{name:<20}{result.summary[name]:>8}")
    _print_blind(f"vlguard:{path}#{split}", f"vlguard:{out}#{split}")
    print(f"wrote {out / f'{split}.json'} and {out / f'balance.{split}.json'}", file=sys.stderr)
    return 0


def _balance_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vlsafe data balance",
        description="Rewrite the requests of a VLGuard set so that every subset opens with the same words, equally "
        "often. Answers, ids, pictures and labels stay; each pair says what it was before.",
        epilog="Reads SOURCE, vlguard:DIR[#split] (default: train). Writes DIR/<split>.json in the same schema, "
        "DIR/balance.<split>.json (what was done) and a link to the pictures; prints how well an image-blind "
        "classifier does before and after. The same source always gives the same bytes.",
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write, not the source's own")
    parser.add_argument(
        "--no-same-request",
        dest="same_request",
        action="store_false",
        help="add no records that ask a harmless picture's request of a harmful picture",
    )
    parser.add_argument(
        "--vary-refusals",
        action="store_true",
        help="also vary how refusals open: plainly, with the reason, with an offer",
    )
    return parser


def _print_blind(before: str, after: str) -> None:
    """How well the words of a request alone predict its refusal, cross-validated within the split."""
    from vlsafe.audit.blind import blind_scores
    from vlsafe.audit.exchanges import read_sources

    for name, spec in (("before", before), ("after", after)):
        for score in blind_scores(read_sources([spec])):
            row = score.row()
            print(f"{name:<8}{score.classifier:<14}{row['accuracy']:>6.1f} %   larger side {row['majority']:.1f} %")


def manifest_main(argv: list[str]) -> int:
    """``data manifest --config C --out FILE``. Raises VlsafeError; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="vlsafe data manifest",
        description="Reads a config (--config, and any option of `fit`) and all the records and pictures that its "
        "mixture may draw; loads no weights. Writes their ids and content hashes, the rule of their order and their "
        "licences. `fit` with data.init_args.manifest replays it, and refuses when a record differs.",
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the manifest to write")
    options, rest = parser.parse_known_args(argv)

    import json

    from vlsafe.cli import built
    from vlsafe.data.manifest import describe

    run = built(rest)
    data = run.datamodule
    mixture = data.open(run.model.backbone)
    manifest = describe(mixture, data.sources, data.parts, data.share_of)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for name, count in mixture.counts().items():
        print(f"{name:<20}{len(mixture.pools[name]):>9} records{count:>9} samples a pass")
    print(f"wrote {options.out}", file=sys.stderr)
    return 0


def index_main(argv: list[str]) -> int:
    """``data index SOURCE... [--cache DIR]``. Raises VlsafeError; returns the exit status."""
    from vlsafe.data.sources import open_source
    from vlsafe.fetch.paths import use_cache

    parser = argparse.ArgumentParser(
        prog="vlsafe data index",
        description="Open and check sources (kind:path[#split]). Large files are indexed into the cache directory, "
        "where every later run finds them; a killed run goes on where it stopped. Prints the records of each.",
        allow_abbrev=False,
    )
    parser.add_argument("sources", nargs="+", metavar="SOURCE")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="cache directory, also for cache: paths")
    options = parser.parse_args(argv)
    use_cache(options.cache)
    for spec in options.sources:
        print(f"{len(open_source(spec)):>10} records  {spec}")
    return 0
