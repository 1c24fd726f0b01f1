"""The audit as one self-contained page: no script, nothing loaded, every text from the data escaped."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from vlsafe.evaluation import markup, plots
from vlsafe.evaluation.markup import safe
from vlsafe.evaluation.report_text import count, number

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_CHIPS = {"serious": "worse", "warning": "warning", "note": "plain"}
SHOWN_IDS = 50
SHOWN_WORDS = 30


def page(report: Mapping[str, Any]) -> str:
    """The whole page for what :func:`vlsafe.audit.auditing.audit` gives."""
    style = files("vlsafe.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    style += files("vlsafe.audit").joinpath("audit.css").read_text(encoding="utf-8")
    title = "Audit of " + ", ".join(source["label"] for source in report["sources"])
    sections = (_findings, _blind, _first_words, _detectors, _openings, _counts, _lengths)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{safe(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"{_header(report, title)}\n<main>\n{''.join(section(report) for section in sections)}</main>\n"
        "</body>\n</html>\n"
    )


def _header(report: Mapping[str, Any], title: str) -> str:
    numbers = [
        f"<code>{safe(source['spec'])}</code>: {count(source['records'])} records, "
        f"{count(source['exchanges'])} questions with answers"
        for source in report["sources"]
    ]
    severities = [finding["severity"] for finding in report["findings"]]
    told = ", ".join(f"{severities.count(name)} {name}" for name in _CHIPS)
    return (
        f'<header>\n<p class="eyebrow">vlsafe data audit</p>\n<h1>{safe(title)}</h1>\n'
        f'<p class="lead">Findings: {told}.</p>\n<p class="meta">{"<br>".join(numbers)}</p>\n</header>'
    )


def _findings(report: Mapping[str, Any]) -> str:
    return markup.section("Findings", "".join(map(_finding, report["findings"])) or "<p>None.</p>")


def _finding(finding: Mapping[str, Any]) -> str:
    where = " · ".join(name for name in (finding["source"], finding["subset"]) if name)
    ids = finding["ids"][:SHOWN_IDS]
    more = len(finding["ids"]) - len(ids)
    listed = ", ".join(_named(identity, finding["matches"].get(identity, ())) for identity in ids)
    rest = f" … and {count(more)} more in audit.json" if more > 0 else ""
    return (
        f"<details><summary>{markup.chip(_CHIPS[finding['severity']], finding['severity'])}"
        f'<span class="question">{safe(finding["title"])}: {safe(finding["what"])}</span>'
        f'<span class="chips">{safe(where)}</span></summary>'
        f'<div class="reference"><p><b>Why it matters.</b> {safe(finding["why"])}</p>'
        f"<p><b>What to do.</b> {safe(finding['remedy'])}.</p></div>"
        + (f'<p class="id">{listed}{rest}</p>' if ids else "")
        + f'<p class="id">code <code>{safe(finding["code"])}</code></p></details>'
    )


def _named(identity: str, matches: Any) -> str:
    same = [match for match in matches if match != identity]
    return f"<code>{safe(identity)}</code>" + (f" = {safe(', '.join(same[:3]))}" if same else "")


def _blind(report: Mapping[str, Any]) -> str:
    columns = ("Classifier", "Learnt on", "Tested on", "Right, %", "Larger side, %", "By subset, %")
    rows = []
    for score in report["blind"]:
        learnt = f"{score['train']}, {score['folds']}-fold" if score["folds"] else score["train"]
        right = (
            f"<b>{number(score['accuracy'])}</b> "
            f'<span class="interval">[{number(score["low"])}, {number(score["high"])}]</span>'
            f"{plots.bar(score['accuracy'] / 100, score['classifier'])}"
        )
        subsets = ", ".join(f"{name or 'all'} {number(of['accuracy'])}" for name, of in score["subsets"].items())
        cells = [safe(score["classifier"]), safe(learnt), safe(score["test"]), right, number(score["majority"])]
        rows.append(markup.row(columns, [*cells, safe(subsets)]))
    told = markup.legend(
        "Naive Bayes on the words of the request alone: is it refused? It never sees the picture. "
        "Near the share of the larger side the words say nothing."
    )
    table = markup.table("Image-blind classifiers, with 95 % intervals", columns, [markup.body(rows)])
    return markup.section("What the words alone give away", told + table) if rows else ""


def _first_words(report: Mapping[str, Any]) -> str:
    columns = ("First word", "Answered", "Refused", "Refused, %")
    tables = []
    for label, words in report["first_words"].items():
        rows = []
        for row in words[:SHOWN_WORDS]:
            share = row["refuse"] / (row["answer"] + row["refuse"])
            shown = f"{number(100 * share)}{plots.bar(share, row['word'])}"
            rows.append(
                markup.row(columns, [safe(row["word"]) or "—", count(row["answer"]), count(row["refuse"]), shown])
            )
        caption = f"{label}: {len(words)} different first words, the {min(SHOWN_WORDS, len(words))} most frequent"
        tables.append(markup.table(caption, columns, [markup.body(rows)], "words"))
    return markup.section("First words", f'<div class="figures">{"".join(tables)}</div>')


def _detectors(report: Mapping[str, Any]) -> str:
    columns = ("Subset", "Detector", "Called refusals", "n", "Share, %")
    tables = []
    for label, subsets in report["detectors"].items():
        rows = []
        for subset, detectors in subsets.items():
            for name, of in detectors.items():
                interval = f'<span class="interval">[{number(of["low"])}, {number(of["high"])}]</span>'
                shown = f"{number(of['share'])} {interval}{plots.bar(of['share'] / 100, name)}"
                cells = [safe(subset) or "all", f"<code>{safe(name)}</code>", count(of["refused"]), count(of["n"])]
                rows.append(markup.row(columns, [*cells, shown]))
        tables.append(markup.table(label, columns, [markup.body(rows)]))
    told = markup.legend("The share of the references themselves that each phrase list calls a refusal.")
    return markup.section("Refusal detectors on the references", told + "".join(tables))


def _openings(report: Mapping[str, Any]) -> str:
    columns = ("Subset", "Refusals", "Different", "Entropy, bits", "Most frequent")
    tables = []
    for label, subsets in report["openings"].items():
        rows = []
        for subset, of in subsets.items():
            top = ", ".join(f"“{each['opening']}” {count(each['count'])}" for each in of["top"][:5])
            bits = f"{of['entropy_bits']:.2f} of at most {of['most_possible_bits']:.2f}"
            cells = [safe(subset) or "all", count(of["n"]), count(of["distinct"]), bits, safe(top)]
            rows.append(markup.row(columns, cells))
        if rows:
            tables.append(markup.table(label, columns, [markup.body(rows)]))
    told = markup.legend("First two words of each refusal. 0 bits: all open alike.")
    return markup.section("How refusals open", told + "".join(tables)) if tables else ""


def _counts(report: Mapping[str, Any]) -> str:
    columns = ("By", "Name", "Count", "Share, %")
    tables = []
    for label, kinds in report["counts"].items():
        rows = []
        for kind, values in kinds.items():
            total = sum(values.values())
            for name, n in sorted(values.items(), key=lambda pair: -pair[1]):
                shown = f"{number(100 * n / total)}{plots.bar(n / total, name)}"
                rows.append(markup.row(columns, [safe(kind), safe(name) or "none", count(n), shown]))
        looked = report["pictures"][label]
        caption = f"{label}; pictures: " + ", ".join(f"{count(n)} {name}" for name, n in looked.items())
        tables.append(markup.table(caption, columns, [markup.body(rows)]))
    return markup.section("Counts", "".join(tables))


def _lengths(report: Mapping[str, Any]) -> str:
    columns = ("Subset", "Text", "Mean", "Median", "95th percentile", "Largest")
    tables = []
    for label, subsets in report["lengths"].items():
        rows = [
            markup.row(
                columns,
                [safe(subset) or "all", kind, *(number(of[key]) for key in ("mean", "median", "p95", "max"))],
            )
            for subset, kinds in subsets.items()
            for kind, of in kinds.items()
        ]
        tables.append(markup.table(label, columns, [markup.body(rows)]))
    unit = report["length_unit"]
    told = markup.legend("In words." if unit == "words" else f"In tokens of <code>{safe(unit)}</code>.")
    return markup.section("Lengths", told + "".join(tables))
