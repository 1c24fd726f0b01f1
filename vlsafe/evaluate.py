"""``evaluate``: measure a model on benchmarks, by the same four stages as the evaluation inside a run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import torch
from transformers import PretrainedConfig
from transformers.utils.logging import disable_progress_bar

from vlsafe.answering import Decoding, Responder
from vlsafe.data.chat import TEMPLATES
from vlsafe.errors import ConfigError, DataError
from vlsafe.evaluate_report import report
from vlsafe.evaluate_run import measure_as_run
from vlsafe.evaluation.batching import check_batching
from vlsafe.evaluation.benchmarks import BENCHMARKS
from vlsafe.evaluation.benchmarks.base import Benchmark
from vlsafe.evaluation.judges.itself import refuse_itself
from vlsafe.evaluation.judges.options import add_judge_options, chosen_judge, chosen_pair_judge
from vlsafe.evaluation.pairs import rivalled
from vlsafe.evaluation.scoring import check_pictures, check_sides
from vlsafe.evaluation.served import ServedModel, is_address
from vlsafe.evaluation.sharing import Processes, joined
from vlsafe.evaluation.stages import evaluate
from vlsafe.evaluation.suites import Suite, opened, suite_named, suite_names
from vlsafe.export import restored
from vlsafe.models.backbones.base import Backbone
from vlsafe.models.backbones.image_fit import CheckpointFit
from vlsafe.models.backbones.pretrained import PretrainedVLLM
from vlsafe.models.export import merge
from vlsafe.models.responder import ModelResponder
from vlsafe.models.strength import with_adapter
from vlsafe.protocol import asked_as, judged_by
from vlsafe.strategies.attention import Runtime

Precision = Literal["float32", "bfloat16", "float16"]


def main(argv: list[str]) -> int:
    """Each process of torchrun or srun answers and judges its share. Raises VlsafeError; returns the exit status."""
    options = _parser().parse_args(argv)
    disable_progress_bar()
    with joined() as processes:
        measure(options, processes)
    return 0


def measure(options: argparse.Namespace, processes: Processes) -> None:
    """Everything that can be refused is, before any weight is loaded."""
    if options.lora_strength != 1 and options.adapter is None:
        raise ConfigError("--lora-strength is of an adapter; name its folder with --adapter")
    if options.baseline is not None and not (options.baseline / "metrics.json").is_file():
        raise DataError(f"--baseline {options.baseline} holds no metrics.json; name the --out of a finished evaluation")
    if options.config is not None:
        refuse_decided(options)
        load = None if options.model is None else partial(loaded, options)
        measure_as_run(options.config, Path(options.out), processes, load)
        if processes.first:
            report(Path(options.out), options.model or f"{options.config}, before tuning", options.baseline)
        return
    if options.model is None:
        raise ConfigError("--model says what to measure; only with --config it may be left out")
    suite = suite_named(options.suite) if options.suite else listed(options.benchmarks, options.data)
    protocol = judged_by(suite, options)
    judge, pair_judge = chosen_judge(options), chosen_pair_judge(options)
    for each in (judge, pair_judge):
        if each is not None:
            refuse_itself(each, options.model)
    benchmarks, skipped = opened(suite, options.data, options.limit, options.skip_missing)
    if is_address(options.model):
        benchmarks, unread = answerable_in_words(benchmarks, options.skip_missing)
        skipped += unread
    items = [item for each in benchmarks for item in each.items()]
    check_sides(items)
    check_pictures(items)
    if pair_judge is not None:
        rivalled(items)
    out, decoding = Path(options.out), Decoding(options.max_new_tokens or suite.max_new_tokens)
    responder: Responder
    made_with: dict[str, str] = {}
    if is_address(options.model):
        responder = ServedModel(options.model, options.concurrency)
        protocol += ["template and image fit are the server's own"] if suite.template or suite.image_fit else []
    else:
        backbone, model = loaded(options)
        protocol += asked_as(suite, options, backbone, model.config)
        made_with = {"precision": backbone.dtype, "attention": str(backbone.kernels)}
        if processes.first:
            told = f"precision: {backbone.dtype} (--dtype {options.dtype}); attention: {backbone.kernels}"
            print(told, file=sys.stderr)
        responder = ModelResponder(model, backbone, options.batch_size)
        if options.batch_size > 1 and options.check_items:
            alone = ModelResponder(model, backbone, batch_size=1)
            check_batching(items, responder, alone, decoding, out, options.check_items, processes)
    evaluate(benchmarks, responder, judge, decoding, out, processes, pair_judge)
    if processes.first:
        notes = [f"suite {options.suite}: {', '.join(protocol)}"] if options.suite and protocol else []
        report(out, str(options.model), options.baseline, skipped, notes, made_with)


def refuse_decided(options: argparse.Namespace) -> None:
    """Raises ConfigError for what would be ignored beside ``--config``, which decides it."""
    decided = ["data", "skip_missing", "judge", "judge_option", "pair_judge", "pair_judge_option", "limit"]
    decided += ["max_new_tokens", "batch_size", "check_items"]
    parser = _parser()
    given = [name for name in decided if getattr(options, name) != parser.get_default(name)]
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ConfigError(f"{flags}: with --config the run's evaluation section decides; change it there")
    if options.model is not None and is_address(options.model):
        raise ConfigError("--config measures weights; for a server give --suite or --benchmarks")


def loaded(options: argparse.Namespace) -> tuple[Backbone, torch.nn.Module]:
    """A checkpoint of a run (``.ckpt``) as it would be exported, or whatever transformers loads, with the adapter if
    one is named and then with its processor, which holds the template and the image fit of the tuning."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if Path(options.model).suffix == ".ckpt":
        if options.adapter is not None:
            raise ConfigError("--adapter is laid over a base model; a .ckpt holds what was tuned already")
        if options.dtype != "auto":
            raise ConfigError(
                "--dtype is of a model's folder; a .ckpt is measured in the precision of its run's config"
            )
        module = restored(Path(options.model)).model
        return module.backbone, merge(module).to(device).eval()
    tuned = options.adapter is not None and (options.adapter / "processor_config.json").is_file()
    backbone = PretrainedVLLM(
        options.model,
        image_fit=options.image_fit or "checkpoint",
        processor=str(options.adapter) if tuned else None,
        template=options.template,
    )
    assert backbone.processor is not None  # what is wrong with it is told before weights load
    backbone.dtype = precision(options.dtype, backbone.config)
    model = backbone.load(Runtime.here(backbone.dtype))
    if options.adapter is not None:
        model = with_adapter(model, options.adapter, options.lora_strength)
    return backbone, model.to(device).eval()


def precision(asked: str, config: PretrainedConfig) -> Precision:
    """``asked``; for ``auto``, what config.json says that the checkpoint's weights are kept in, else float32.

    Raises ConfigError where that is none of ours to compute in.
    """
    kept = config.dtype or config.get_text_config().dtype or "float32"
    name = str(kept).removeprefix("torch.") if asked == "auto" else asked
    found: Precision | None = next((each for each in get_args(Precision) if each == name), None)
    if found is None:
        raise ConfigError(f"the checkpoint's weights are kept in {name}; say with --dtype what to compute in")
    return found


def listed(benchmarks: str, data: Path | None) -> Suite:
    """``NAME=PATH`` or ``NAME`` with its data at ``DATA/NAME``, separated by commas, as a suite.

    The path of a ``table`` is its declaration in YAML.
    """
    rows = []
    for spec in benchmarks.split(","):
        name, _, path = spec.partition("=")
        BENCHMARKS[name]  # an unknown name is told before a missing path
        if not path and data is None:
            raise ConfigError(f"benchmark {name!r}: say where its data is, --benchmarks {name}=PATH or --data DIR")
        rows.append({"benchmark": name, "path": path or str((data or Path()) / name)})
    return Suite(tuple(rows))


def answerable_in_words(benchmarks: Sequence[Benchmark], skip: bool) -> tuple[list[Benchmark], list[str]]:
    """Those that a server can answer, and a line on each that it cannot; ConfigError for these unless ``skip``."""
    scored = [each for each in benchmarks if any(item.options for item in each.items())]
    told = [
        f"{each.name}: needs log-likelihoods, which a server's chat completions do not give; evaluate the weights "
        "themselves, or let it read written answers (mmlu: mode generate)"
        for each in scored
    ]
    if told and not skip:
        raise ConfigError([*told[:-1], f"{told[-1]}, or leave it out with --skip-missing"])
    return [each for each in benchmarks if each not in scored], told


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vlsafe evaluate",
        description="Reads a model and benchmarks. Writes items.jsonl, responses.jsonl, verdicts.<judge>.jsonl, "
        "metrics.json, report.json and report.html into OUT; batching.json and alone.jsonl of the check, "
        "preferences.<judge>.jsonl of a pair judge. Run again, it does only what is missing.",
    )
    parser.add_argument(
        "--model",
        help="Hugging Face directory, hub name, cache:NAME, a run's .ckpt, or a server: http://HOST/v1, "
        "NAME@http://HOST/v1; left out, with --config, the config's own model before tuning",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--suite", help=f"{', '.join(suite_names())}, or a file of yours; docs/benchmarks.md")
    what.add_argument("--benchmarks", help=f"NAME=PATH or NAME, separated by commas; names: {', '.join(BENCHMARKS)}")
    what.add_argument(
        "--config", type=Path, metavar="RUN/config.yaml", help="of a run: its benchmarks, judge, length and batches"
    )
    parser.add_argument("--out", required=True, help="folder of this evaluation")
    parser.add_argument("--data", type=Path, help="folder of data sets under their names, read before the cache")
    parser.add_argument(
        "--skip-missing", action="store_true", help="leave out benchmarks that cannot be had, listed in the report"
    )
    parser.add_argument("--baseline", type=Path, metavar="DIR", help="an earlier OUT of the same items to compare with")
    add_judge_options(parser, default=None)
    parser.add_argument("--pair-judge", help="api:MODEL@URL: win rates against the rivals' answers that items bring")
    parser.add_argument("--pair-judge-option", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--limit", type=int, help="items of each variant, drawn by seed")
    parser.add_argument("--max-new-tokens", type=int, help="of an answer; default: the suite's, else 256")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument(
        "--check-items",
        type=int,
        default=32,
        metavar="N",
        help="items also answered one by one, to see whether batches change answers; 0: none (default: 32)",
    )
    parser.add_argument("--concurrency", type=int, default=16, help="requests to a server under way at once")
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=["auto", *get_args(Precision)],
        help="precision of the weights and of what is computed; auto (the default): the checkpoint's own",
    )
    parser.add_argument("--adapter", type=Path, help="folder of an exported adapter, laid over MODEL, its base")
    parser.add_argument(
        "--lora-strength", type=float, default=1.0, metavar="S", help="of the adapter; 0 is MODEL itself, default: 1"
    )
    parser.add_argument(
        "--image-fit",
        choices=get_args(CheckpointFit),
        help="pad: fill images up to a square, as LLaVA-1.5 was tuned; checkpoint: as its processor says, the default",
    )
    parser.add_argument("--template", choices=TEMPLATES.names(), help="chat template; default: the checkpoint's own")
    return parser
