"""The report as one self-contained page: no script, nothing loaded, every text from outside escaped.

Answers are what a model wrote, hence untrusted: they reach the page through :func:`vlsafe.evaluation.markup.safe` only.
"""

from __future__ import annotations

import math
from importlib.resources import files
from typing import Any

from vlsafe.account import explained
from vlsafe.evaluation import markup, plots
from vlsafe.evaluation import report_text as words
from vlsafe.evaluation.markup import safe
from vlsafe.evaluation.report_examples import examples_section
from vlsafe.evaluation.report_probes import batching_section, probes_section

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_KEY = (
    '<span class="key ring" aria-hidden="true"></span>before: ring &nbsp; '
    '<span class="key disc" aria-hidden="true"></span>after: disc'
)
_PAIRED_COLUMNS = ("Metric", "0 to 100 %", "Before, %", "After, %", "Difference, points", "p", "n", "n_error")
_SINGLE_COLUMNS = ("Metric", "0 to 100 %", "Rate, %", "n", "n_error")


def page(report: dict[str, Any]) -> str:
    """The whole page for a report that :func:`vlsafe.evaluation.report.completed` has checked."""
    style = files("vlsafe.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    sections = (
        *(_results, _tradeoff, probes_section, _curves, _agreement, examples_section),
        *(_trained, _data, _phases, batching_section, _environment),
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{safe(report['title'])}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"{_header(report)}\n<main>\n{''.join(section(report) for section in sections)}</main>\n</body>\n</html>\n"
    )


def _header(report: dict[str, Any]) -> str:
    notes = "".join(f"<li>{safe(note)}</li>" for note in [*words.told_apart(report), *report["notes"]])
    return (
        f'<header>\n<p class="eyebrow">vlsafe run report</p>\n<h1>{safe(report["title"])}</h1>\n'
        f'<p class="lead">{safe(words.headline(report))}</p>\n'
        f'<div class="tiles">{"".join(_tile(mean) for mean in words.means(report))}</div>\n'
        f'<p class="meta">Created <time>{safe(report["created"])}</time> · refusals recognised by '
        f"<code>{safe(report['judge'])}</code></p>\n"
        + (f'<aside aria-label="Notes"><b>Notes</b><ul>{notes}</ul></aside>\n' if notes else "")
        + "</header>"
    )


def _tile(mean: words.Mean) -> str:
    arrow = '<span aria-hidden="true">→</span><span class="sr">to</span>'
    before = "" if mean.before is None else f'<span class="was">{words.rate(mean.before)} {arrow}</span> '
    return (
        f'<div class="tile"><h2>{safe(mean.title)}</h2><p class="big">{before}{words.rate(mean.after)}</p>'
        f"<p>{safe(mean.sets)}; {mean.better} is better</p></div>"
    )


def _results(report: dict[str, Any]) -> str:
    paired = words.paired(report)
    columns = _PAIRED_COLUMNS if paired else _SINGLE_COLUMNS
    groups = []
    for side in words.SIDES:
        names = words.names_of(report, side)
        if names:
            about = f"{words.SIDE_TITLES[side]} <span>{words.SIDE_WORDS[side]}</span>"
            rows = [markup.row(columns, _metric_cells(report, name, paired)) for name in names]
            groups.append(markup.body([markup.group_row(columns, about), *rows]))
    caption = "Every metric of this run, with 95 % intervals"
    table = markup.table(caption, columns, groups, "metrics paired" if paired else "metrics")
    lines = (words.INTERVAL_WORDS, words.P_WORDS, words.N_WORDS) if paired else (words.INTERVAL_WORDS, words.N_WORDS)
    reading = "".join(f"<p>{line}</p>" for line in lines)
    key = markup.legend(_KEY) if paired else ""
    return markup.section("Results", f'{key}{table}<div class="fine">{reading}</div>')


def _metric_cells(report: dict[str, Any], name: str, paired: bool) -> list[str]:
    row, way = report["metrics"][name], report["directions"][name]
    better, note = way["better"], f"; {way['note']}" if "note" in way else ""
    before, after, difference = row.get("before"), row["after"], row.get("difference")
    breakable = safe(name).replace("/", "/<wbr>").replace("[", "<wbr>[")
    head = [
        f'<code>{breakable}</code> <span class="direction">{better} is better{safe(note)}</span>',
        plots.strip(name, after, before),
    ]
    counts = [_both(before, after, "n"), _both(before, after, "n_error")]
    if not paired:
        return [*head, _rate_cell(after), *counts]
    changes = [_difference_cell(difference, better), _p_cell(difference)] if difference else ["—", "—"]
    return [*head, _rate_cell(before), _rate_cell(after), *changes, *counts]


def _rate_cell(side: dict[str, Any] | None) -> str:
    if side is None:
        return "—"
    if not side["n"]:
        return "no scored item"
    return f'<b>{words.number(side["value"])}</b> <span class="interval">{words.interval(side)}</span>'


def _difference_cell(difference: dict[str, Any], better: str) -> str:
    verdict = words.change(difference, better)
    kind, sign = {"better": ("better", "▲"), "worse": ("worse", "▼"), "not clear": ("plain", "≈")}[verdict]
    return (
        f"<b>{words.number(difference['value'], signed=True)}</b> "
        f'<span class="interval">{words.interval(difference, signed=True)}</span> '
        f"{markup.chip(kind, f'{sign} {verdict}')}"
    )


def _p_cell(difference: dict[str, Any]) -> str:
    shown = words.p_value(difference["p"])
    if "p_holm" in difference:
        shown += f' <span class="interval">Holm {words.p_value(difference["p_holm"])}</span>'
    return shown


def _both(before: dict[str, Any] | None, after: dict[str, Any], key: str) -> str:
    if before is None or before[key] == after[key]:
        return words.count(after[key])
    return f"{words.count(before[key])} before, {words.count(after[key])} after"


def _tradeoff(report: dict[str, Any]) -> str:
    harm = words.mean_of(report, "harm")
    others = [words.mean_of(report, side) for side in ("benign", "utility")]
    planes = [_plane(report, harm, other) for other in others if harm and other]
    if not harm or not planes:
        return ""
    several = " Large: the mean of the harm-side sets; small: each set." if len(harm.scopes) > 1 else ""
    key = f"{_KEY}." if harm.before is not None else ""
    told = markup.legend(
        f"{key}{several} The shaded corner is where a model should be: low attack success, and little lost for it."
    )
    return markup.section("Safety against its cost", f'{told}<div class="figures">{"".join(planes)}</div>')


def _plane(report: dict[str, Any], harm: words.Mean, other: words.Mean) -> str:
    """The harm side's mean first, then each of its sets, all against the other side's mean."""
    moves = [plots.Move(harm.sets, *_ends(other, harm.before, harm.after))]
    for scope in harm.scopes if len(harm.scopes) > 1 else ():
        row = report["metrics"][f"{scope}/{harm.metric}"]
        before = row["before"]["value"] if harm.before is not None else None
        moves.append(plots.Move(scope, *_ends(other, before, row["after"]["value"])))
    drawn = plots.tradeoff(moves, other.title, harm.title, right_is_better=other.better == "higher")
    against = other.title + (f", {other.sets}" if len(other.scopes) > 1 else "")
    return f"<figure><figcaption>Against {safe(against)}</figcaption>{drawn}</figure>"


def _ends(other: words.Mean, before: float | None, after: float) -> tuple[plots.Point, plots.Point | None]:
    start = None if before is None or other.before is None else (other.before, before)
    return (other.after, after), start


def _agreement(report: dict[str, Any]) -> str:
    columns = ("Judges", "Over", "Agree, %", "Cohen's kappa", "n", "n_error")
    rows = []
    for each in report["agreement"]:
        known = each["kappa"] is not None
        spread = f' <span class="interval">[{each["low"]:.2f}, {each["high"]:.2f}]</span>' if known else ""
        beyond = f"<b>{each['kappa']:.2f}</b>{spread}" if known else "one label only"
        pair = f"<code>{safe(each['first'])}</code> and <code>{safe(each['second'])}</code>"
        agreed = "—" if each["agreed"] is None else words.number(each["agreed"])
        counts = [words.count(each["n"]), words.count(each["n_error"])]
        rows.append(markup.row(columns, [pair, safe(each["over"]), agreed, beyond, *counts]))
    told = markup.legend("Kappa is agreement beyond chance: 1 is perfect, 0 is chance. Brackets: 95 % interval.")
    table = markup.table("How far the judges agree on the same answers", columns, [markup.body(rows)])
    return markup.section("Agreement between judges", told + table) if rows else ""


def _curves(report: dict[str, Any]) -> str:
    if not report["trained"]:
        return ""
    curves = {name: values for name, values in report["curves"].items() if name != "step"}
    numbers = [value for values in curves.values() for value in values if value is not None]
    if not numbers:
        return markup.section("Loss", "<p>No training loss was logged.</p>")
    steps, high, low = report["curves"]["step"], max(numbers), min(0.0, *numbers)
    window = math.ceil(len(steps) / 20) | 1  # odd: as many values on either side
    figures = []
    for name, values in curves.items():
        title = "All sources" if name == "loss" else name.removeprefix("loss/")
        drawn = plots.curve(title, steps, values, low, high if high > low else low + 1, window)
        figures.append(f"<figure><figcaption>{safe(title)}</figcaption>{drawn}</figure>")
    told = markup.legend(
        "Training loss per supervised token, on one scale for all. Thin: as logged. "
        f"Thick: mean of {window} neighbouring values."
    )
    return markup.section("Loss", f'{told}<div class="figures">{"".join(figures)}</div>')


def _trained(report: dict[str, Any]) -> str:
    columns = ("Component", "Trained", "Learning rate", "Parameters", "Trainable", "Trains in", "Frozen in", "Note")
    rows = []
    for part in report["trained"]:
        share = f" ({words.number(100 * part['trainable'] / part['parameters'])} %)" if part["trainable"] else ""
        numbers = [words.count(part["parameters"]), words.count(part["trainable"]) + share]
        rate = f"{part['learning_rate']:g}" if part["learning_rate"] else "—"
        words_of = [safe(part.get(name, "")) or "—" for name in ("dtype", "frozen_dtype", "note")]
        rows.append(markup.row(columns, [safe(part["component"]), safe(part["train"]), rate, *numbers, *words_of]))
    table = markup.table("Each component of the model", columns, [markup.body(rows)])
    return markup.section("What was trained", table) if rows else ""


def _data(report: dict[str, Any]) -> str:
    parts = report["data"]["parts"]
    columns = ("Part", "Source", "Share asked for", "Samples", "Supervised tokens")
    totals = {key: sum(part[key] for part in parts) for key in ("samples", "supervised_tokens")}
    rows = []
    for part in parts:
        counted = [_counted(part[key], total, f"{part['name']}, {key}") for key, total in totals.items()]
        share = f"{words.number(100 * part['share'])} %"
        rows.append(markup.row(columns, [safe(part["name"]), f"<code>{safe(part['source'])}</code>", share, *counted]))
    told = markup.legend(
        f"{words.count(report['data']['samples'])} samples in training. The loss counts supervised tokens, those of "
        f"the answers, so a part with long answers weighs more than its share of the samples. {_loading(report)}"
    )
    table = markup.table("Samples and supervised tokens by part", columns, [markup.body(rows)], "data")
    return markup.section("Data mixed", told + table + _changes(report["data"])) if rows else ""


def _changes(data: dict[str, Any]) -> str:
    """What was not taken as it stands: records when the parts were opened, samples when they were encoded."""
    found = [(part["name"], part.get("changes", {})) for part in data["parts"]]
    found.append(("samples of the first process", data.get("loading", {}).get("changes", {})))
    told = [
        f"{safe(name)}: " + "; ".join(f"{safe(kind)} ({words.count(number)})" for kind, number in changes.items())
        for name, changes in found
        if changes
    ]
    return markup.legend(f"Not taken as it stands. {'. '.join(told)}.") if told else ""


def _loading(report: dict[str, Any]) -> str:
    loading = report["data"].get("loading")
    if loading is None:
        return ""
    who = f"each of {loading['workers']} workers" if loading["workers"] else "the training process, without workers,"
    speed = words.number(loading["samples_per_second_per_worker"])
    return (
        f"Training waited for data {words.number(100 * loading['wait_share'])} % of its time; {who} read, decoded and "
        f"encoded {speed} samples a second."
    )


def _counted(value: float, total: float, title: str) -> str:
    share = value / total if total else 0.0
    shown = f"{words.count(value)} ({words.number(100 * share)} %)"
    return f"{shown}{plots.bar(share, f'{title}: {shown}')}"


def _phases(report: dict[str, Any]) -> str:
    columns = ("Phase", "Time", "Share")
    total = math.fsum(phase["seconds"] for phase in report["phases"])
    rows = []
    for phase in report["phases"]:
        share = phase["seconds"] / total if total else 0.0
        shown, time = f"{words.number(100 * share)} %", words.duration(phase["seconds"])
        bar = plots.bar(share, f"{phase['name']}: {time}, {shown}")
        rows.append(markup.row(columns, [safe(phase["name"]), time, f"{shown}{bar}"]))
    table = markup.table(f"Wall time by phase, {words.duration(total)} in all", columns, [markup.body(rows)], "phases")
    if not rows:
        return ""
    named = explained({phase["name"]: phase["seconds"] for phase in report["phases"]})
    told = markup.legend(
        f"Of the process that ended this run, from its start. {words.number(100 * named)} % of its time is in a phase "
        "with a name. Parts of training are measured on the device's own clock."
    )
    return markup.section("Time", told + table)


def _environment(report: dict[str, Any]) -> str:
    facts = report["environment"].items()
    rows = "".join(f"<div><dt>{safe(name)}</dt><dd>{safe(str(value))}</dd></div>" for name, value in facts)
    return markup.section("Versions and machine", f'<dl class="environment">{rows}</dl>') if rows else ""
