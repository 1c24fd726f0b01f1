"""The whole audit: sources in, one plain dictionary out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlsafe.audit import blind, duplicates, origins, pictures, texts
from vlsafe.audit.exchanges import Audited, read_sources
from vlsafe.audit.findings import Finding, ranked

VERSION = 1
"""Of the layout of ``audit.json``."""


def audit(specs: Sequence[str], tokenizer: str | None = None) -> dict[str, Any]:
    """What ``audit.json`` holds: tables by source label, and ``findings``, the serious ones first.

    The first source is learnt from; every other one is a test of it. Lengths are in tokens of ``tokenizer``, or in
    words. The same sources always give the same result. Raises ConfigError for an unknown source or tokenizer,
    DataError for malformed records; pictures that are missing or broken are findings.
    """
    count = texts.token_counter(tokenizer)
    sources = read_sources(specs)
    findings: list[Finding] = []
    report: dict[str, Any] = {"version": VERSION, "length_unit": tokenizer or "words"}
    report["sources"] = [_described(source) for source in sources]
    tables: dict[str, dict[str, Any]] = {name: {} for name in ("counts", "lengths", "detectors", "openings")}
    tables |= {"first_words": {}, "pictures": {}}
    seen = [pictures.look_at(source) for source in sources]
    for source, looked in zip(sources, seen, strict=True):
        tables["counts"][source.label] = texts.counts(source)
        tables["lengths"][source.label] = texts.lengths(source, count)
        tables["pictures"][source.label] = looked.row()
        for name, table in (("detectors", texts.detected), ("openings", texts.openings)):
            tables[name][source.label], found = table(source)
            findings += found
        tables["first_words"][source.label], found = texts.first_words(source)
        findings += [*found, *texts.empty_references(source), *duplicates.duplicates(source), *_gaps(source)]
        findings += pictures.picture_findings(looked)
        findings += [*origins.licence_findings(source), *origins.win_rate_references(source)]
    for test, looked in zip(sources[1:], seen[1:], strict=True):
        findings += [*duplicates.leaks(sources[0], test), *pictures.picture_leaks(seen[0], looked)]
    scores = blind.blind_scores(sources)
    findings += blind.blind_findings(scores)
    report |= tables
    report["blind"] = [score.row() for score in scores]
    report["findings"] = [finding.row() for finding in ranked(findings)]
    return report


def _described(source: Audited) -> dict[str, Any]:
    return {
        "label": source.label,
        "spec": source.spec,
        "records": len(source.records),
        "exchanges": len(source.exchanges),
        "labels_from": "tags" if source.labelled else "keyword:vlsafe",
    }


def _gaps(source: Audited) -> list[Finding]:
    """What the source does not say of its records."""
    found = []
    if not source.labelled:
        n = len(source.exchanges)
        found.append(Finding("guessed_labels", "note", source.label, n, n, "no record says whether its answer refuses"))
    category = {each.record: each.category for each in source.exchanges}
    without = [record for record, name in category.items() if not name]
    if without and len(without) < len(category):
        what = f"{len(without)} of {len(category)} records carry no category"
        found.append(Finding("no_category", "note", source.label, len(without), len(category), what, ids=without))
    return found
