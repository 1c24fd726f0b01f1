"""The report of a study as one self-contained page: no script, nothing loaded, every text from outside escaped."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from statistics import fmean

from vlsafe.evaluation import markup
from vlsafe.evaluation.markup import safe
from vlsafe.evaluation.report_text import number
from vlsafe.studies import study_plots as plots
from vlsafe.studies.runs import SEEDS, Run, groups, settings
from vlsafe.studies.shares import over_share
from vlsafe.studies.study_paper import beside_paper
from vlsafe.studies.tradeoff import RULE, Spread, checkpoints, front, rank_correlation, recommended, spread

_FEW = 3
"""Settings that fit into the sentence that recommends them; where runs differ in more, they are named instead."""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_MORE = (
    ".wide { overflow-x: auto; }\n"
    ".parallel .tick { stroke: var(--card); stroke-width: 3px; paint-order: stroke; }\n"
    "@media screen and (min-width: 761px) { .wide td, .wide th { overflow-wrap: normal; } }\n"
)
_AXIS = 130
"""Pixels that an axis of the plot of all settings needs, so that its name can be read."""
_START = "model.init_args.backbone.init_args.checkpoint"


def page(runs: Sequence[Run], out: Path, share: str) -> str:
    """The whole page. ``out`` is where it will lie, which links to the runs' reports start from; ``share`` is the
    config's key that the share plot is drawn over, where the runs differ in it."""
    style = files("vlsafe.evaluation").joinpath("report.css").read_text(encoding="utf-8") + _MORE
    keys = settings(runs)
    parts = [_planes(runs), _shares(runs, share), _curves(runs), _parallel(runs, keys), beside_paper(runs)]
    parts.append(_table(runs, keys, out))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>Study of {len(runs)} runs</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"{_header(runs, keys)}\n<main>\n{''.join(parts)}</main>\n</body>\n</html>\n"
    )


def _header(runs: Sequence[Run], keys: Sequence[str]) -> str:
    grouped = groups(runs)
    best = recommended(grouped)
    if best is None:
        said = "No setting can be recommended: no run has an objective in its report."
    elif not any(run.objective for run in best):
        said = "No setting can be recommended: every objective is 0, as of a model that refuses nothing or everything."
    else:
        chosen = _and([run.label for run in best])
        if 0 < len(keys) <= _FEW:
            chosen = ", ".join(f"{_short(key)} = {_told(_shown(best[0].config.get(key), {}))}" for key in keys)
        cost = f"attack success {number(fmean(r.asr for r in best))} %, over-refusal "
        cost += f"{number(fmean(r.over_refusal for r in best))} %"
        if all(run.utility is not None for run in best):
            cost += f", utility {number(fmean(run.utility or 0 for run in best))} %"
        of = f" (mean of {len(best)} runs)" if len(best) > 1 else ""
        said = f"Recommended: {chosen}: {cost}{of}."
    return (
        f'<header>\n<p class="eyebrow">vlsafe study report</p>\n<h1>{len(runs)} runs of {len(grouped)} settings</h1>\n'
        f'<p class="lead">{safe(said)}</p>\n<p class="meta">Rule: {safe(RULE)}. Refusals recognised by '
        f"<code>{safe(runs[0].report['judge'])}</code>.</p>\n</header>"
    )


def _planes(runs: Sequence[Run]) -> str:
    best = {run.path for run in front(runs)}
    drawn = [("Over-refusal", False, [run.over_refusal for run in runs])]
    if all(run.utility is not None for run in runs):
        drawn.append(("Utility", True, [run.utility or 0.0 for run in runs]))
    figures = []
    for title, right, values in drawn:
        dots = [plots.Dot(r.label, v, r.asr, r.path in best) for r, v in zip(runs, values, strict=True)]
        plot = plots.plane(dots, f"{title}, %", "Attack success", right)
        figures.append(f"<figure><figcaption>Against {title.lower()}</figcaption>{plot}</figure>")
    told = markup.legend(
        "A dot is a run. Filled: on the Pareto front of attack success, over-refusal and utility together: no other "
        "run is as good in all three. The shaded corner is where a model should be."
    )
    return markup.section("Safety against its cost", f'{told}<div class="figures">{"".join(figures)}</div>')


def _shares(runs: Sequence[Run], key: str) -> str:
    by_share = over_share(runs, key)
    if not by_share:
        return ""

    def over_seeds(rates: dict[float, list[float]]) -> list[tuple[float, Spread]]:
        return [(value, spread(each)) for value, each in rates.items()]

    attack = plots.with_intervals(
        over_seeds({share: [run.asr for run in each] for share, each in by_share.items()}),
        _short(key),
        "Attack success",
    )
    refusal = plots.with_intervals(
        over_seeds({share: [run.over_refusal for run in each] for share, each in by_share.items()}),
        _short(key),
        "Over-refusal",
    )
    told = markup.legend("Mean over the runs of a share, with Student's 95 % interval where there are several seeds.")
    figures = f"<figure>{attack}</figure><figure>{refusal}</figure>"
    return markup.section("How much safety data", f'{told}<div class="figures">{figures}</div>')


def _curves(runs: Sequence[Run]) -> str:
    names = sorted({name for run in runs for name in run.curves if not name.startswith("objective/")})
    figures = []
    for name in names:
        curves = [(run.label, run.curves[name]) for run in runs if run.curves.get(name)]
        if any(len(curve) > 1 for _, curve in curves):
            plot = plots.lines(curves, name)
            figures.append(f"<figure><figcaption>{safe(name)}</figcaption>{plot}</figure>")
    if not figures:
        return ""
    pairs = checkpoints(runs)
    correlation = rank_correlation(pairs)
    told = "Thin: each run. Thick: their mean."
    if correlation is not None:
        told += (
            f" Over {len(pairs)} checkpoints of these runs the margin of refusing against complying openings predicts "
            f"the generated attack success with a rank correlation of {correlation:.2f} (-1 would be perfect)."
        )
    return markup.section("On the way", f'{markup.legend(safe(told))}<div class="figures">{"".join(figures)}</div>')


def _parallel(runs: Sequence[Run], keys: Sequence[str]) -> str:
    best = {run.path for run in front(runs)}
    results = ["attack success", "over-refusal", *(["utility"] if all(r.utility is not None for r in runs) else [])]
    names = _models(runs)
    rows = []
    for run in runs:
        values = [_shown(run.config.get(key), names) for key in keys]
        measured = [run.asr, run.over_refusal, run.utility][: len(results)]
        rows.append((run.label, [*values, *(value or 0.0 for value in measured)], run.path in best))
    axes = [*map(_short, keys), *results]
    plot = plots.parallel(axes, rows)
    told = markup.legend("A line is a run, from its settings to its results; thick: on the Pareto front.")
    room = f'<div style="min-width: {_AXIS * len(axes)}px">{plot}</div>'
    return markup.section("All settings at once", f'{told}<div class="wide">{room}</div>')


def _table(runs: Sequence[Run], keys: Sequence[str], out: Path) -> str:
    columns = ("Run", "ASR, %", "Over-refusal, %", "Utility, %", "Objective", *map(_short, keys), "Seed")
    best, names = {run.path for run in front(runs)}, _models(runs)
    if any(_shown(run.config.get(_START), names) in names.values() for run in runs):
        told, ordered = "Every run, in the order in which they ended", sorted(runs, key=lambda run: run.created)
    else:
        told, ordered = "Every run, the best objective first", _best_first(runs)
    rows = []
    for run in ordered:
        page = run.path / "report.html"
        link = safe(Path(os.path.relpath(page, out.resolve().parent)).as_posix())
        link = safe(run.link) or link
        name = f'<a href="{link}">{safe(run.label)}</a>' if run.link or page.is_file() else safe(run.label)
        chip = f" {markup.chip('better', 'front')}" if run.path in best else ""
        numbers = [
            "—" if value is None else number(value) for value in (run.asr, run.over_refusal, run.utility, run.objective)
        ]
        cells = [safe(_told(_shown(run.config.get(key, ""), names))) for key in (*keys, SEEDS[0])]
        rows.append(markup.row(columns, [name + chip, *numbers, *cells]))
    table = markup.table(told, columns, [markup.body(rows)])
    return markup.section("Runs", f'<div class="wide">{table}</div>')


def _best_first(runs: Sequence[Run]) -> list[Run]:
    return sorted(runs, key=lambda run: -1.0 if run.objective is None else run.objective, reverse=True)


def _models(runs: Sequence[Run]) -> dict[str, str]:
    """Where a run's exported model lies -> what the run is called."""
    return {str((run.path / "model").resolve()): run.label for run in runs}


def _told(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _short(key: str) -> str:
    return ".".join(key.replace("init_args.", "").split(".")[-2:])


def _shown(value: object, names: Mapping[str, str]) -> float | str:
    """A setting as it is told; a model that another run has made by that run's name."""
    if isinstance(value, str) and value.endswith("/model"):
        return names.get(str(Path(value).resolve()), value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
