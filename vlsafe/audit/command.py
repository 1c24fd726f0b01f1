"""The verb ``audit``."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from vlsafe.audit.auditing import audit
from vlsafe.audit.findings import SEVERITIES
from vlsafe.audit.page import page
from vlsafe.data.sources import SOURCES
from vlsafe.evaluation.records import write_text


def main(argv: list[str]) -> int:
    """``audit SOURCE [TEST_SOURCE ...] --out DIR``. Raises VlsafeError; returns the exit status."""
    options = _parser().parse_args(argv)
    report = audit(options.sources, options.tokenizer)
    out: Path = options.out
    write_text(out / "audit.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_text(out / "audit.html", page(report))
    for finding in report["findings"]:
        where = "/".join(name for name in (finding["source"], finding["subset"]) if name)
        print(f"{finding['severity']:<8} {finding['code']:<24} {where}: {finding['what']}")
    counted = Counter(finding["severity"] for finding in report["findings"])
    print(", ".join(f"{counted[name]} {name}" for name in SEVERITIES))
    print(f"wrote {out / 'audit.json'} and {out / 'audit.html'}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vlsafe audit",
        description="Look for what a data set gives away, repeats, lacks or leaks, before it is trained on or measured "
        "with.",
        epilog=f"Reads sources named kind:path[#split]; kinds: {', '.join(SOURCES)}. Pictures may be absent; that is a "
        "finding then. Writes DIR/audit.json (tables and findings, each with severity, reason and ids) and "
        "DIR/audit.html, and prints one line a finding. Findings do not change the exit status.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="the first is what would be trained on; every other one is tested against it",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for audit.json and audit.html")
    parser.add_argument(
        "--tokenizer", metavar="MODEL", help="folder or hub name whose tokens measure length (default: count words)"
    )
    return parser
