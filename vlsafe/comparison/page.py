"""A comparison as one self-contained page: no script, nothing loaded, every text from outside escaped."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from vlsafe.comparison import text
from vlsafe.comparison.plane import places, plane
from vlsafe.evaluation import markup
from vlsafe.evaluation.markup import safe
from vlsafe.evaluation.report_examples import example_card
from vlsafe.evaluation.report_text import SIDE_TITLES, SIDE_WORDS, SIDES, change, number
from vlsafe.studies.forgetting import FORGOTTEN

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_MORE = ".wide { overflow-x: auto; } .flips { margin-left: 12px; border: 0; }\n"
MOST_FLIPS = 200
"""Items shown of one run and metric; the JSON has all."""


def page(told: dict[str, Any]) -> str:
    """The whole page for what :func:`vlsafe.comparison.table.comparison` told."""
    style = files("vlsafe.evaluation").joinpath("report.css").read_text(encoding="utf-8") + _MORE
    title = f"{len(told['runs'])} evaluations compared"
    lines = "".join(f"<p>{safe(line)}</p>" for line in text.reading(told))
    sections = (_planes, _rates, _changes, _forgetting, _flips)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{safe(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f'<header>\n<p class="eyebrow">vlsafe compare</p>\n<h1>{safe(title)}</h1>\n<div class="fine">{lines}</div>\n'
        f"</header>\n<main>\n{''.join(section(told) for section in sections)}</main>\n</body>\n</html>\n"
    )


def _planes(told: dict[str, Any]) -> str:
    figures, keys = [], ""
    for side in ("benign", "utility"):
        found = places(told, side)
        if found is not None:
            caption = f"Against {found[0].lower()}"
            figures.append(f"<figure><figcaption>{safe(caption)}</figcaption>{plane(*found)}</figure>")
            names = "; ".join(f"{count} {each.name}" for count, each in enumerate(found[3], start=1))
            keys += f"<p>{safe(caption)}: {safe(names)}.</p>"
    if not figures:
        return ""
    told_how = markup.legend(
        "Means over the sets that all runs have. Disc: ours; ring: the paper's. The shaded corner is where a model "
        "should be: low attack success, and little lost for it."
    )
    body = f'{told_how}<div class="figures">{"".join(figures)}</div><div class="fine">{keys}</div>'
    return markup.section("Safety against its cost", body)


def _rates(told: dict[str, Any]) -> str:
    heads = text.columns(told)
    cells = {row[0].partition(" (")[0]: row[1:] for row in text.rates(told, "")}
    groups = []
    for side in SIDES:
        names = [name for name, metric in told["metrics"].items() if metric["side"] == side]
        if names:
            about = f"{SIDE_TITLES[side]} <span>{SIDE_WORDS[side]}</span>"
            rows = [markup.row(heads, [_named(name, told), *map(safe, cells[name])]) for name in names]
            groups.append(markup.body([markup.group_row(heads, about), *rows]))
    table = markup.table("Every metric, with 95 % intervals", heads, groups)
    return markup.section("Rates", f'<div class="wide">{table}</div>')


def _named(name: str, told: dict[str, Any]) -> str:
    breakable = safe(name).replace("/", "/<wbr>").replace("[", "<wbr>[")
    metric = told["metrics"][name]
    note = f"; {metric['note']}" if "note" in metric else ""
    return f'<code>{breakable}</code> <span class="direction">{metric["better"]} is better{safe(note)}</span>'


def _changes(told: dict[str, Any]) -> str:
    heads, rows = text.changes(told)
    if not rows:
        return ""
    body = []
    runs = [run for run in told["runs"] if run != told["baseline"]]
    for name, *cells in rows:
        metric = told["metrics"][name]
        shown = [
            safe(cell) + _chip(metric, metric["differences"].get(run)) for run, cell in zip(runs, cells, strict=True)
        ]
        body.append(markup.row(heads, [_named(name, told), *shown]))
    table = markup.table(f"Points from {told['baseline']} on the same items", heads, [markup.body(body)])
    return markup.section("Differences", f'<div class="wide">{table}</div>')


def _chip(metric: dict[str, Any], difference: dict[str, Any] | None) -> str:
    if difference is None:
        return ""
    verdict = change(difference, metric["better"])
    kind, sign = {"better": ("better", "▲"), "worse": ("worse", "▼"), "not clear": ("plain", "≈")}[verdict]
    return f" {markup.chip(kind, f'{sign} {verdict}')}"


def _forgetting(told: dict[str, Any]) -> str:
    heads = ("Metric", "Run", "Pictures", "n", "Right before", "Forgotten", "Gained", "Retention, %")
    rows = []
    for run, kept in told["forgetting"].items():
        for row in kept:
            share = (
                "—"
                if row["retention"] is None
                else f"{number(row['retention'])} [{number(row['low'])}, {number(row['high'])}]"
            )
            counts = [str(row[key]) for key in ("n", "right_before", "forgotten", "gained")]
            rows.append(markup.row(heads, [_named(row["metric"], told), safe(run), row["pictures"], *counts, share]))
    if not rows:
        return ""
    legend = markup.legend("; ".join(safe(f"{side} side, {words}") for side, words in FORGOTTEN.items()) + ".")
    table = markup.table(f"Items that were right in {told['baseline']}", heads, [markup.body(rows)])
    return markup.section("Forgotten and gained", f'{legend}<div class="wide">{table}</div>')


def _flips(told: dict[str, Any]) -> str:
    runs = []
    for run, flipped in told["flips"].items():
        by_metric: dict[str, list[dict[str, Any]]] = {}
        for flip in flipped:
            by_metric.setdefault(flip["metric"], []).append(flip)
        if by_metric:
            runs.append(
                f"<h3>{safe(run)}</h3>" + "".join(_metric_flips(name, each) for name, each in by_metric.items())
            )
    if not runs:
        return ""
    legend = markup.legend(
        f"Items whose outcome differs between {safe(told['baseline'])} (before) and a run (after), each folded; "
        "harm-side texts are cut short. Pictures are left out; an id leads to its item in <code>items.jsonl</code>."
    )
    return markup.section("Flips", legend + "".join(runs))


def _metric_flips(name: str, flipped: list[dict[str, Any]]) -> str:
    forgotten = sum(flip["change"] == "forgotten" for flip in flipped)
    more = len(flipped) - MOST_FLIPS
    tail = f'<p class="id">and {more} more, in the JSON of this comparison</p>' if more > 0 else ""
    cards = "".join(
        example_card(flip | {"scope": f"{flip['change']} · {name}"}, opened=False) for flip in flipped[:MOST_FLIPS]
    )
    counted = f"{forgotten} forgotten, {len(flipped) - forgotten} gained"
    return (
        f'<details class="flips"><summary><code>{safe(name)}</code><span class="chips">{counted}</span></summary>'
        f"{cards}{tail}</details>"
    )
