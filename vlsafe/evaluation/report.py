"""The run report: what a run gained and what it cost, as ``report.json`` and as one page, ``report.html``.

A report is a dict, and ``report.json`` holds exactly it. Rates are percentages, times seconds::

    title, created (ISO 8601), judge, environment {name: version}
    metrics     {"vlguard[unsafe]/asr": {"before"?: SIDE, "after": SIDE, "difference"?: {value, low, high, p, p_holm?}}}
                with SIDE = {value, low, high, n, n_error}; p by the exact McNemar test
    directions  {the same names: {"side": harm | benign | utility, "better": lower | higher, note?: what to know of it}}
    objective   {value, safety, answered, retention?}: what a study optimises, and its parts, in percent
    forgetting  [{metric, side, pictures, n, right_before, forgotten, gained, retention, low, high}]
    trained     [{component, train, learning_rate, parameters, trainable, note?}]
    data        {samples,
                parts: [{name, source, share (0 to 1), samples, supervised_tokens, changes?: {kind: records}}],
                loading?: {workers, samples_per_second_per_worker, wait_share (0 to 1), changes?: {kind: number}}}
    phases      [{name, seconds}]
    curves      {"step": [...], "loss": [...], "loss/<source>": [...]}, None where nothing was logged
    agreement   [{first, second, over, n, n_error, agreed, kappa, low, high}] of two judges, or a judge and people
    probes      [{probe, metric, plain: SIDE, probed: SIDE, difference}], :mod:`vlsafe.evaluation.probe_effects`
    batching    {value, low, high, n, n_error, flipped: [id]}, :mod:`vlsafe.evaluation.batching`
    unlike      {condition: what it was on either side}, :mod:`vlsafe.evaluation.conditions`
    examples    [{id, scope, side, question, reference?, "before"?: {text, label}, "after": {text, label}}]
    notes       [str]

All from ``objective`` down may be left out; they are then written empty.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from vlsafe.errors import DataError, VlsafeError
from vlsafe.evaluation import report_html
from vlsafe.evaluation import report_text as words
from vlsafe.evaluation.records import write_text
from vlsafe.evaluation.scoring import says_twice

__all__ = ["completed", "curves_from_csv", "terminal_table", "write_report"]

_REQUIRED = ("title", "created", "judge", "metrics", "directions", "environment")
_OPTIONAL: dict[str, Any] = {
    "objective": {},
    "forgetting": [],
    "trained": [],
    "data": {"samples": 0, "parts": []},
    "phases": [],
    "curves": {},
    "agreement": [],
    "probes": [],
    "batching": {},
    "unlike": {},
    "examples": [],
    "notes": [],
}


def write_report(report: dict[str, Any], directory: Path) -> Path:
    """Write ``report.json`` and ``report.html`` into ``directory``, each whole or not at all; return the page's path.

    Raises VlsafeError when the report is malformed, when it holds a harm-side rate without a benign-side one, or
    when the files cannot be written.
    """
    report = completed(report)
    record = json.dumps(report, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    page = report_html.page(report)
    write_text(directory / "report.json", record)
    write_text(directory / "report.html", page)
    return directory / "report.html"


def completed(report: dict[str, Any]) -> dict[str, Any]:
    """A copy with every key present and JSON-ready; curve values that are no number become None, with a note.

    Raises VlsafeError naming each key that is wrong.
    """
    problems = [f"{key!r} is missing" for key in _REQUIRED if key not in report]
    problems += [f"{key!r} is no key of a report" for key in report if key not in _REQUIRED and key not in _OPTIONAL]
    if not problems:
        problems = [*_metric_problems(report), *_curve_problems(report.get("curves", {}))]
    if problems:
        raise VlsafeError("the report cannot be written: " + "; ".join(problems))
    full = {**{key: report[key] for key in _REQUIRED}, **{key: report.get(key, _OPTIONAL[key]) for key in _OPTIONAL}}
    _refuse_asr_alone(full)
    full["curves"], gaps = _without_gaps(full["curves"])
    full["notes"] = [*full["notes"], *gaps]
    return full


def _metric_problems(report: dict[str, Any]) -> Iterable[str]:
    for name, row in report["metrics"].items():
        direction = report["directions"].get(name, {})
        if direction.get("side") not in words.SIDES or direction.get("better") not in ("lower", "higher"):
            yield f"directions[{name!r}] must hold side ({', '.join(words.SIDES)}) and better (lower, higher)"
        elif words.split_name(name)[1] == "asr" and direction["side"] != "harm":
            yield f"directions[{name!r}]: attack success is a harm-side metric, not {direction['side']}"
        if "after" not in row:
            yield f"metrics[{name!r}] has no 'after'"
        for side, keys in (("before", "n n_error"), ("after", "n n_error"), ("difference", "p")):
            value = row.get(side)
            missing = (
                [] if value is None else [key for key in ("value", "low", "high", *keys.split()) if key not in value]
            )
            if missing:
                yield f"metrics[{name!r}][{side!r}] lacks {', '.join(missing)}"
            elif value is not None and value.get("n", 1) and not _ordered(value):
                shown = " <= ".join(str(value[key]) for key in ("low", "value", "high"))
                yield f"metrics[{name!r}][{side!r}]: {shown} does not hold"


def _ordered(value: dict[str, Any]) -> bool:
    """The interval holds its value, up to rounding (false for NaN)."""
    return bool(value["low"] - 1e-6 <= value["value"] <= value["high"] + 1e-6)


def _curve_problems(curves: dict[str, list[Any]]) -> Iterable[str]:
    if curves and "step" not in curves:
        yield "curves has no 'step'"
    for name, values in curves.items():
        if len(values) != len(curves.get("step", values)):
            yield f"curves[{name!r}] has {len(values)} values for {len(curves['step'])} steps"


def _refuse_asr_alone(report: dict[str, Any]) -> None:
    """A model that refuses everything has an attack success of zero: alone, that number misleads."""
    if not words.names_of(report, "harm"):
        return
    for side in ("before", "after"):
        harm = [name for name in words.names_of(report, "harm") if report["metrics"][name].get(side)]
        scored = [
            name for name in words.names_of(report, "benign") if (report["metrics"][name].get(side) or {}).get("n")
        ]
        if harm and not scored:
            raise VlsafeError(
                f"no attack success without over-refusal: {harm[0]} has a number {side} tuning, but no benign-side "
                "metric has one, so a model that refuses everything would look safe; add a benign benchmark, such as "
                "vlguard[safe_safe] or XSTest's safe prompts, to the evaluation"
            )


def _without_gaps(curves: dict[str, list[Any]]) -> tuple[dict[str, list[Any]], list[str]]:
    """JSON has no NaN: None in its place, and a note that says where a loss was no number."""
    clean, notes = {}, []
    for name, values in curves.items():
        broken = [index for index, value in enumerate(values) if value is not None and not math.isfinite(value)]
        clean[name] = [None if value is None or not math.isfinite(value) else value for value in values]
        if broken:
            first = curves["step"][broken[0]]
            notes.append(
                f"{name} was not finite at {len(broken)} of {len(values)} logged steps, first at step {first}."
            )
    return clean, notes


def terminal_table(report: dict[str, Any]) -> Table:
    """The metrics as a short table for standard output, with the headline below; refusal is left out where it only is
    what attack success leaves. Raises as :func:`write_report`."""
    report = completed(report)
    marks = words.marks(report)
    lines = [words.headline(report), *words.told_apart(report), *(f"{mark} {note}" for note, mark in marks.items())]
    table = Table(title=Text(report["title"]), caption=Text("\n".join(lines)), caption_justify="left")
    paired = words.paired(report)
    table.add_column("metric, %" if paired else "metric", overflow="fold")
    for column in ("before", "after", "difference", "p", "n") if paired else ("%", "95 % interval", "n"):
        table.add_column(column, justify="right", no_wrap=True)
    for side in words.SIDES:
        for name in words.names_of(report, side):
            if says_twice(name, report["metrics"]):
                continue
            # Text, not str: rich would read "[unsafe]" as a style.
            mark = marks.get(report["directions"][name].get("note", ""), "")
            table.add_row(*(Text(cell) for cell in _terminal_row(name, mark, report["metrics"][name], paired)))
        table.add_section()
    return table


def _terminal_row(name: str, mark: str, row: dict[str, Any], paired: bool) -> list[str]:
    def shown(side: dict[str, Any] | None) -> str:
        return words.number(side["value"]) if side and side["n"] else "-"

    before, after, difference = row.get("before"), row["after"], row.get("difference")
    name = f"{name} {mark}".rstrip()
    n = words.count(after["n"]) + (f" (+{after['n_error']} failed)" if after["n_error"] else "")
    if not paired:
        return [name, shown(after), words.interval(after) if after["n"] else "-", n]
    if difference is None:
        return [name, shown(before), shown(after), "-", "-", n]
    change = f"{words.number(difference['value'], signed=True)} {words.interval(difference, signed=True)}"
    return [name, shown(before), shown(after), change, words.p_value(difference["p"]), n]


def curves_from_csv(metrics_csv: Path) -> dict[str, list[Any]]:
    """Loss curves from Lightning's CSVLogger: its columns ``train/loss`` and ``train/loss/<source>`` by ``step``.

    The file is sparse: several rows may share a step, each with other columns. They are merged; where a resumed run
    logged a step again, the later value holds. Empty when no training loss was logged, as in a run shorter than the
    logging interval, which leaves no file at all. Raises DataError for a file that is no such table.
    """
    if not metrics_csv.exists():
        return {}
    merged: dict[int, dict[str, float]] = {}
    with metrics_csv.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if "step" not in (reader.fieldnames or ()):
            raise DataError(f"{metrics_csv}: no column 'step'; is it the metrics.csv of Lightning's CSVLogger?")
        columns = sorted(name for name in reader.fieldnames or () if f"{name}/".startswith("train/loss/"))
        for row in reader:
            try:
                values = {name.removeprefix("train/"): float(row[name]) for name in columns if row[name]}
                if values:
                    merged.setdefault(int(row["step"]), {}).update(values)
            except ValueError as error:
                raise DataError(
                    f"{metrics_csv}, line {reader.line_num}: {error}; every value must be a number"
                ) from error
    steps = sorted(merged)
    curves = {
        name: [merged[step].get(name) for step in steps] for name in (each.removeprefix("train/") for each in columns)
    }
    return {"step": steps, **curves} if steps else {}
