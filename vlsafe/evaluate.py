"""``evaluate``: measure a model on benchmarks, by the same four stages as the evaluation inside a run."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

import torch
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from vlsafe.answering import Decoding
from vlsafe.data.chat import TEMPLATES
from vlsafe.errors import ConfigError
from vlsafe.evaluation.agreement import folder_agreements
from vlsafe.evaluation.benchmarks import BENCHMARKS
from vlsafe.evaluation.benchmarks.base import Benchmark
from vlsafe.evaluation.benchmarks.table import TableBenchmark, declared_table
from vlsafe.evaluation.folder import metric_row, read_folder
from vlsafe.evaluation.judges.options import add_judge_options, chosen_judge
from vlsafe.evaluation.report import examples, terminal_table, write_report
from vlsafe.evaluation.scoring import directions, score
from vlsafe.evaluation.sharing import Processes, joined
from vlsafe.evaluation.stages import evaluate
from vlsafe.models.backbones.pretrained import PretrainedVLLM
from vlsafe.models.responder import ModelResponder
from vlsafe.models.strength import with_adapter
from vlsafe.run_report import versions

SUITES = {
    # what fits a laptop: drawn pictures, their text-only sets, and simple questions on shapes
    "quick": [
        "vlguard=cache:drawn-safety",
        "advbench=cache:drawn-safety/text_harm_test.csv",
        "xstest=cache:drawn-safety/trick_test.csv",
        "easy_vqa=cache:easy-vqa",
    ],
    "text": ["advbench=cache:advbench/harmful_behaviors.csv", "xstest=cache:xstest/xstest_prompts.csv"],
}


def main(argv: list[str]) -> int:
    """Under torchrun each process answers and judges its share. Raises VlsafeError; returns the exit status."""
    options = _parser().parse_args(argv)
    disable_progress_bar()
    with joined() as processes:
        measure(options, processes)
    return 0


def measure(options: argparse.Namespace, processes: Processes) -> None:
    if options.lora_strength != 1 and options.adapter is None:
        raise ConfigError("--lora-strength is of an adapter; name its folder with --adapter")
    specs = options.benchmarks.split(",") if options.benchmarks else SUITES[options.suite]
    benchmarks = [benchmark(spec, options.data, options.limit) for spec in specs]
    backbone = PretrainedVLLM(options.model, template=options.template, dtype=options.dtype)
    model = backbone.load_model()
    if options.adapter is not None:
        model = with_adapter(model, options.adapter, options.lora_strength)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    responder = ModelResponder(model, backbone, options.batch_size)
    out = Path(options.out)
    evaluate(benchmarks, responder, chosen_judge(options), Decoding(options.max_new_tokens), out, processes)
    if processes.first:
        report(out, str(options.model))


def report(folder: Path, title: str) -> None:
    """``report.json`` and ``report.html`` of one evaluation, and its table on standard output."""
    kept = read_folder(folder)
    metrics = score(kept.items, kept.responses, kept.verdicts, kept.benchmarks)
    content = {
        "title": title,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "judge": kept.judge,
        "metrics": {name: {"after": metric_row(metric)} for name, metric in metrics.items()},
        "directions": directions(kept.items, list(metrics), kept.benchmarks),
        "agreement": folder_agreements(folder),
        "examples": examples(kept.items, [], kept.responses, [], kept.verdicts),
        "environment": versions(),
    }
    page = write_report(content, folder)
    Console().print(terminal_table(content))
    print(f"report: {page}")


def benchmark(spec: str, data: str | None, limit: int | None) -> Benchmark:
    """``NAME=PATH``, or ``NAME`` with its data at ``DATA/NAME``. The path of a ``table`` is its declaration in YAML."""
    name, _, path = spec.partition("=")
    kind = BENCHMARKS[name]
    if not path and data is None:
        raise ConfigError(f"benchmark {name!r}: say where its data is, --benchmarks {name}=PATH or --data DIR")
    place = path or str(Path(data or "") / name)
    made: Benchmark = declared_table(place, limit) if kind is TableBenchmark else kind(path=place, limit=limit)
    return made


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vlsafe evaluate",
        description="Reads a model and benchmarks. Writes items.jsonl, responses.jsonl, verdicts.<judge>.jsonl, "
        "metrics.json, report.json and report.html into OUT; run again, it does only what is missing.",
    )
    parser.add_argument("--model", required=True, help="Hugging Face directory, hub name or cache:NAME")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--suite", choices=sorted(SUITES))
    what.add_argument("--benchmarks", help=f"NAME=PATH or NAME, separated by commas; names: {', '.join(BENCHMARKS)}")
    parser.add_argument("--out", required=True, help="folder of this evaluation")
    parser.add_argument("--data", help="folder that holds each benchmark's data under its name")
    add_judge_options(parser)
    parser.add_argument("--limit", type=int, help="items of each variant, drawn by seed")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--adapter", type=Path, help="folder of an exported adapter, laid over MODEL, its base")
    parser.add_argument(
        "--lora-strength", type=float, default=1.0, metavar="S", help="of the adapter; 0 is MODEL itself, default: 1"
    )
    parser.add_argument("--template", choices=TEMPLATES.names(), help="chat template; default: the checkpoint's own")
    return parser
