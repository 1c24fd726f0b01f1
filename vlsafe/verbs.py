"""The verbs of the command line: what each does, where its code is, what it reads and writes.

A plain table that imports nothing, so that ``--help`` answers at once; a verb's module is imported when
the verb is used. A new verb is one line here and a ``main(argv) -> int | None`` in its own room.
"""

from __future__ import annotations

from typing import NamedTuple


class Verb(NamedTuple):
    """``target`` is ``"module:function"``; the function gets the arguments after the verb.

    ``passes_name``: the function serves several verbs and gets the verb's name as its first argument.
    """

    summary: str
    reads_writes: str
    target: str
    passes_name: bool = False


VERBS: dict[str, Verb] = {
    "fetch": Verb(
        "bring data sets and models by name, verified and resumable",
        "names -> cache directory",
        "vlsafe.fetch.command:main",
    ),
    "preview": Verb(
        "show decoded training samples with the supervised part marked",
        "config -> text",
        "vlsafe.preview:main",
    ),
    "audit": Verb(
        "what a data set gives away, repeats, lacks or leaks",
        "sources -> audit.json, audit.html",
        "vlsafe.audit.command:main",
    ),
    "clean": Verb(
        "take harmful samples out of an instruction set, by any judge",
        "source -> clean file, removed file, verdicts, report",
        "vlsafe.clean.command:main",
    ),
    "data": Verb(
        "make data from data: a de-biased set",
        "source -> VLGuard folder",
        "vlsafe.data_commands:main",
    ),
    "plan": Verb(
        "what a run will need: memory, time, disk, and the least sharding that fits",
        "config -> table, batch file",
        "vlsafe.planning.command:main",
    ),
    "rehearse": Verb(
        "run a config from end to end at toy size, before a weight is downloaded",
        "config -> table",
        "vlsafe.rehearsal.command:main",
    ),
    "fit": Verb(
        "fine-tune, with an evaluation before and after, and report",
        "config -> run directory",
        "vlsafe.cli:main",
        passes_name=True,
    ),
    "validate": Verb(
        "loss on held-out conversations", "config, checkpoint -> table", "vlsafe.cli:main", passes_name=True
    ),
    "test": Verb(
        "held-out loss, and the config's evaluation",
        "config, checkpoint -> table, evaluation/test",
        "vlsafe.cli:main",
        passes_name=True,
    ),
    "predict": Verb(
        "answers to prompts", "config, checkpoint -> predictions.jsonl", "vlsafe.cli:main", passes_name=True
    ),
    "evaluate": Verb(
        "measure a model: safety, over-refusal, helpfulness",
        "model, suite -> items, responses, verdicts, metrics, report",
        "vlsafe.evaluate:main",
    ),
    "judge": Verb(
        "give verdicts on answers that are already there",
        "responses JSONL -> verdicts JSONL",
        "vlsafe.evaluation.commands:judge_main",
    ),
    "grade": Verb(
        "have a language model grade open answers (MM-Vet)",
        "evaluation directory, endpoint -> grades",
        "vlsafe.evaluation.grade_command:main",
    ),
    "score": Verb(
        "turn verdicts into metrics with intervals",
        "evaluation directory -> metrics.json",
        "vlsafe.evaluation.commands:score_main",
    ),
    "compare": Verb(
        "any number of evaluations side by side, with the paper's numbers",
        "evaluation or run directories -> Markdown, LaTeX, CSV, HTML, JSON",
        "vlsafe.comparison.command:main",
    ),
    "exchange": Verb(
        "evaluations as the logs of lmms-eval and inspect, and lmms-eval's logs as evaluations",
        "evaluation directory <-> logs",
        "vlsafe.exchange.command:main",
    ),
    "sweep": Verb(
        "run the trials of a W&B sweep file without a server",
        "sweep file -> study directory",
        "vlsafe.studies.sweep_command:main",
    ),
    "study": Verb(
        "compare runs: what was forgotten, and the trade-off in one page",
        "run directories -> HTML",
        "vlsafe.studies.study_command:main",
    ),
    "export": Verb(
        "write a checkpoint as a Hugging Face directory",
        "checkpoint -> model directory",
        "vlsafe.export:main",
    ),
    "convert": Verb(
        "rewrite published LLaVA-1.5 or MiniGPT-v2 weights for transformers",
        "original checkpoint -> model directory",
        "vlsafe.convert:main",
    ),
    "doctor": Verb(
        "versions, devices, attention backend, and what is missing",
        "this machine -> table",
        "vlsafe.doctor:main",
    ),
}
