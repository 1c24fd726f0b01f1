"""A comparison as Markdown, LaTeX, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

from vlsafe.evaluation.conditions import told_unlike
from vlsafe.evaluation.report_text import interval, number, p_value

CLAIMS = {"kept": "kept", "lost": "lost", "open": "not shown", "": ""}
"""What the non-inferiority test says, in a word."""

UNLIKE = "(≠)"
"""Beside a run that was measured under other conditions than the baseline."""

_CSV = (
    "metric", "side", "better", "column", "value", "low", "high", "n", "n_error",
    "difference", "difference_low", "difference_high", "p", "p_holm", "claim", "note",
)  # fmt: skip


def markdown(told: dict[str, Any]) -> str:
    """Two tables, rates and differences, and how to read them."""
    parts = [_piped(columns(told), rates(told, "**"))]
    if told["family"]:
        parts += [f"Differences from {told['baseline']}, points:", _piped(*changes(told))]
    return "\n\n".join([*parts, *(f"- {line}" for line in reading(told))]).replace("\n\n- ", "\n- ") + "\n"


def latex(told: dict[str, Any]) -> str:
    """The same as tabulars of booktabs; every text is escaped."""
    parts = [_tabular(columns(told), rates(told, ""))]
    if told["family"]:
        parts.append(_tabular(*changes(told)))
    notes = "".join(f"% {line}\n" for line in reading(told))
    return "% needs \\usepackage{booktabs}\n" + notes + "\n".join(parts)


def csv_table(told: dict[str, Any]) -> str:
    """One row a metric and run, unrounded; the paper's rows are named ``paper:ROW``."""
    file = io.StringIO()
    writer = csv.DictWriter(file, _CSV, lineterminator="\n")
    writer.writeheader()
    for name, metric in told["metrics"].items():
        head = {"metric": name, "side": metric["side"], "better": metric["better"]}
        for run, cell in metric["cells"].items():
            change = metric["differences"].get(run, {})
            named = {"difference": "value", "difference_low": "low", "difference_high": "high"}
            row = {key: change.get(named.get(key, key)) for key in (*named, "p", "p_holm", "claim")}
            known = {key: cell.get(key) for key in ("value", "low", "high", "n", "n_error")}
            unlike = told_unlike(told["unlike"].get(run, {}))
            note = "; ".join(filter(None, [cell.get("withheld"), metric.get("note"), unlike]))
            writer.writerow(head | {"column": run, "note": note} | known | row)
        for paper, cell in metric["published"].items():
            known = {key: cell[key] for key in ("value", "low", "high", "n")}
            note = "; ".join(filter(None, [cell["table"], cell["doubt"]]))
            writer.writerow(head | {"column": f"paper:{paper}", "note": note} | known)
    return file.getvalue()


def as_json(told: dict[str, Any]) -> str:
    return json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def columns(told: dict[str, Any]) -> list[str]:
    papers = dict.fromkeys(row for metric in told["metrics"].values() for row in metric["published"])
    return ["metric, %", *told["runs"], *(f"paper: {row}" for row in papers)]


def rates(told: dict[str, Any], strong: str) -> list[list[str]]:
    """A row a metric: its name and direction, then a cell a run and a paper's row."""
    papers = [title.removeprefix("paper: ") for title in columns(told)[1 + len(told["runs"]) :]]
    rows = []
    for name, metric in told["metrics"].items():
        cells = [shown(metric["cells"].get(run), strong) for run in told["runs"]]
        cells += [shown(metric["published"].get(row), "") for row in papers]
        note = f"; {metric['note']}" if "note" in metric else ""
        rows.append([f"{name} ({metric['better']} is better{note})", *cells])
    return rows


def changes(told: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the differences; a row a metric."""
    runs = [run for run in told["runs"] if run != told["baseline"]]
    heads = ["metric", *(f"{run} {UNLIKE}" if told["unlike"].get(run) else run for run in runs)]
    rows = [
        [name, *(changed(metric["differences"].get(run)) for run in runs)]
        for name, metric in told["metrics"].items()
        if metric["differences"]
    ]
    return heads, rows


def shown(cell: dict[str, Any] | None, strong: str = "") -> str:
    """``**10.0** [4.7, 20.1]``, with what could not be scored; a number that may not be shown says why."""
    if cell is None:
        return "–"
    if "withheld" in cell:
        return f"withheld: {cell['withheld']}"
    if cell["value"] is None:
        return "no scored item"
    text = f"{strong}{number(cell['value'])}{strong}"
    text += "" if cell["low"] is None else f" {interval(cell)}"
    text += " (?)" if cell.get("doubt") else ""
    return text + (f" (+{cell['n_error']} failed)" if cell.get("n_error") else "")


def changed(difference: dict[str, Any] | None) -> str:
    """``−88.3 [−94.1, −76.0], p < 0.001``, Holm's p; of utility, whether it was kept within the margin."""
    if difference is None:
        return "–"
    p = p_value(difference["p_holm"])
    text = f"{number(difference['value'], signed=True)} {interval(difference, signed=True)}, "
    text += f"p {p}" if p.startswith("<") else f"p = {p}"
    return text + (f", {CLAIMS[difference['claim']]}" if difference["claim"] else "")


def reading(told: dict[str, Any]) -> list[str]:
    """How the numbers are to be read, a line each."""
    lines = [f"Judge: {told['judge']}. Brackets: 95 % intervals."]
    if told["family"]:
        lines.append(
            f"Differences pair each item with itself; p allows for all {told['family']} of them (Holm). Utility is "
            f"kept when the whole interval is above a loss of {told['margin']:g} points, lost when all of it is below; "
            "else neither is shown."
        )
    lines += [f"{run} {why}: no difference there." for run, why in told["unpaired"].items()]
    lines += [
        f"{UNLIKE} {run} was measured under {told_unlike(unlike)}; a difference from {told['baseline']} may come of "
        "that alone."
        for run, unlike in told["unlike"].items()
        if unlike
    ]
    if any(metric["published"] for metric in told["metrics"].values()):
        lines.append(
            f"Paper: {told['origin']}, by its own judge; intervals computed here from its item counts. (?): a printed "
            "number that cannot be right."
        )
    return lines


def _piped(heads: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(heads), "|" + "---|" * len(heads), *map(line, rows)])


def _tabular(heads: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str]) -> str:
        return " & ".join(map(_escaped, cells)) + r" \\"

    body = "\n".join(map(line, rows))
    kinds = "l" + "r" * (len(heads) - 1)
    return (
        f"\\begin{{tabular}}{{{kinds}}}\n\\toprule\n{line(heads)}\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"
    )


def _escaped(text: str) -> str:
    text = text.replace("\\", "\0")
    text = re.sub(r"([&%$#_{}])", r"\\\1", text)
    for character, command in {
        "\0": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "–": "--",
        "<": "$<$", ">": "$>$", "\n": " ",
    }.items():  # fmt: skip
        text = text.replace(character, command)
    return text
