"""What a scan found, by category and by source."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from vlsafe.clean.scanning import Finding, harmful


def report_of(findings: Sequence[Finding], threshold: float, **facts: Any) -> dict[str, Any]:
    """JSON-ready. ``facts`` stand first; a row of a table counts ``records``, ``harmful`` and ``unjudged`` ones."""

    def table(name: Callable[[Finding], str]) -> dict[str, dict[str, int]]:
        return _table(findings, threshold, name)

    return {
        **facts,
        "threshold": threshold,
        **_counted(findings, threshold),
        "by_category": table(lambda each: each.category or each.group or "none named"),
        "by_source": table(lambda each: each.source),
        "by_label": table(lambda each: each.label),
        "removed": [
            {"id": each.id, "number": each.number, "label": each.label, "score": each.score, "reason": each.reason}
            for each in findings
            if harmful(each, threshold) or each.label == "error"
        ],
    }


def _table(findings: Iterable[Finding], threshold: float, name: Callable[[Finding], str]) -> dict[str, dict[str, int]]:
    groups: dict[str, list[Finding]] = {}
    for each in findings:
        groups.setdefault(name(each), []).append(each)
    return {key: _counted(groups[key], threshold) for key in sorted(groups)}


def _counted(findings: Sequence[Finding], threshold: float) -> dict[str, int]:
    unjudged = sum(each.label == "error" for each in findings)
    found = sum(each.label != "error" and harmful(each, threshold) for each in findings)
    return {"records": len(findings), "harmful": found, "unjudged": unjudged}


def as_markdown(report: dict[str, Any]) -> str:
    share = 100 * report["harmful"] / report["records"]
    lines = [
        f"# Harmful samples in {report['source']}",
        "",
        f"{report['harmful']} of {report['records']} records ({share:.3f} %) by `{report['judge']}`; "
        f"{report['unjudged']} could not be judged and were removed too.",
    ]
    for key, title in (("by_category", "Category"), ("by_source", "Source"), ("by_label", "Label")):
        lines += ["", f"| {title} | records | harmful | unjudged |", "|---|---|---|---|"]
        for name, row in report[key].items():
            cell = name.replace("|", "\\|")  # a judge's word must not open a cell
            lines.append(f"| {cell} | {row['records']} | {row['harmful']} | {row['unjudged']} |")
    return "\n".join(lines) + "\n"


def as_json(report: dict[str, Any]) -> str:
    return json.dumps(report, ensure_ascii=False, indent=1) + "\n"
