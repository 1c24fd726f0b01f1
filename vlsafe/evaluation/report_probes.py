"""The report's sections on how the numbers were reached: probes, and answers in a batch against answers alone."""

from __future__ import annotations

from typing import Any

from vlsafe.evaluation import markup
from vlsafe.evaluation import report_text as words
from vlsafe.evaluation.markup import safe

_ABOUT = (
    "The same items asked again under one changed condition. image=none and image=blank: the same words without the "
    "picture, or beside a white one; where little changes, the model answers the words alone. opening=swapped: harmful "
    "requests open like harmless ones, and the reverse. system=safety: a system prompt that asks for care. Brackets: "
    "95 % interval of the paired difference."
)


def probes_section(report: dict[str, Any]) -> str:
    columns = ("Probe", "Metric", "As it is, %", "Probed, %", "Difference, points", "n")
    rows = []
    for each in report["probes"]:
        change = each["difference"]
        cells = [
            f"<code>{safe(each['probe'])}</code>",
            f"<code>{safe(each['metric'])}</code>",
            *(_value(each[side]) for side in ("plain", "probed")),
            f"<b>{words.number(change['value'], signed=True)}</b> "
            f'<span class="interval">{words.interval(change, signed=True)}</span>',
            words.count(each["probed"]["n"]),
        ]
        rows.append(markup.row(columns, cells))
    table = markup.table("What each probe changed", columns, [markup.body(rows)])
    return markup.section("Probes", markup.legend(_ABOUT) + table) if rows else ""


def batching_section(report: dict[str, Any]) -> str:
    found = report["batching"]
    if not found or not found["n"]:
        return ""
    told = (
        f"Of {words.count(found['n'])} items asked in a batch and alone, {len(found['flipped'])} got another answer: "
        f"<b>{words.number(found['value'])} %</b> <span class='interval'>{words.interval(found)}</span>."
    )
    names = "".join(f"<li><code>{safe(item_id)}</code></li>" for item_id in found["flipped"])
    return markup.section("Answers in a batch", f"<p>{told}</p>" + (f"<ul>{names}</ul>" if names else ""))


def _value(side: dict[str, Any]) -> str:
    return words.number(side["value"]) if side["n"] else "no scored item"
