"""The verb ``clean``."""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from pathlib import Path

import torch
from filelock import FileLock
from lightning.fabric.plugins.environments import TorchElasticEnvironment

from vlsafe.clean.report import as_json, as_markdown, report_of
from vlsafe.clean.scanning import Shard, complete, harmful, scan
from vlsafe.clean.writing import split_file
from vlsafe.data.sources import SOURCES, open_source, parse_spec
from vlsafe.data.sources.base import RecordSource
from vlsafe.errors import ConfigError, VlsafeError
from vlsafe.evaluation.judges.base import Judge
from vlsafe.evaluation.judges.options import add_judge_options, chosen_judge
from vlsafe.evaluation.records import write_text
from vlsafe.evaluation.scoring import MOST_ERRORS


def main(argv: list[str]) -> int:
    """``clean SOURCE --judge J --out DIR``. Raises VlsafeError; returns the exit status."""
    options = _parser().parse_args(argv)
    judge = chosen_judge(options)
    shard = _shard(options.shard)
    source = _opened(options.source)
    out: Path = options.out
    scan(source, judge, out, shard)
    if judge.told():
        print(judge.told(), file=sys.stderr)
    with FileLock(out / ".finish.lock"):  # the shards that end at the same time would write the same files
        _finish(source, judge, options.threshold, out)
    return 0


def _finish(source: RecordSource, judge: Judge, threshold: float, out: Path) -> None:
    """Split the file once every record has its finding; until then say how many have not."""
    findings, missing = complete(source, judge, out)
    if missing:
        print(
            f"{len(findings)} of {len(source)} records are judged; run the other shards, the last one splits the file"
        )
        return
    failed = [each for each in findings.values() if each.label == "error"]
    if len(failed) > MOST_ERRORS * len(findings):
        raise VlsafeError(
            f"{len(failed)} of {len(findings)} records could not be judged, more than 1 %, so nothing was split; the "
            f"first: {failed[0].reason}. Mend the cause and run again: only these are judged anew"
        )
    split_file(
        source.path, out, lambda number: findings[number].label == "error" or harmful(findings[number], threshold)
    )
    ordered = [findings[number] for number in range(len(source))]
    facts = {"source": source.path.name, "judge": judge.name, "judge_version": judge.version}
    report = report_of(ordered, threshold, **facts)
    write_text(out / "report.json", as_json(report))
    write_text(out / "report.md", as_markdown(report))
    print(as_markdown(report), end="")


def _opened(spec: str) -> RecordSource:
    """Pictures are not looked up: what is judged is text."""
    options: dict[str, object] = dict(parse_spec(spec))
    kind = SOURCES[str(options["kind"])]
    if not issubclass(kind, RecordSource):
        kinds = [name for name in SOURCES if issubclass(SOURCES[name], RecordSource)]
        raise ConfigError(
            f"{spec!r} is no file of one conversation a record, so it cannot be written back without some of them; "
            f"kinds that can: {', '.join(kinds)}"
        )
    if "check_images" in inspect.signature(kind).parameters:
        options["check_images"] = False
    source = open_source(options)
    assert isinstance(source, RecordSource)
    return source


def _shard(text: str | None) -> Shard:
    elastic = TorchElasticEnvironment.detect()
    if text is None and elastic:
        environment = TorchElasticEnvironment()
        if torch.cuda.is_available():
            torch.cuda.set_device(environment.local_rank())
        return Shard(environment.global_rank(), environment.world_size())
    found = re.fullmatch(r"(\d+)/(\d+)", text or "0/1")
    if not found or not int(found[1]) < int(found[2]):
        raise ConfigError(f"--shard {text!r} must be written INDEX/COUNT, the index from 0 to COUNT - 1")
    return Shard(int(found[1]), int(found[2]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vlsafe clean",
        description="Find harmful samples in an instruction set and take them out.",
        epilog="Reads a source named kind:path. Writes into DIR: clean and removed files in the input's own format, "
        "verdicts.*.jsonl with a reason for each record, report.json and report.md by category and source. A sample is "
        "harmful where the judge gives its worst answer a probability of --threshold or more; a judge of refusals "
        "alone (keyword:...) takes a refusing answer for the sign of a harmful request. Run again after a kill, it "
        "judges only what has no verdict. Under torchrun each rank takes its share.",
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="SOURCE")
    add_judge_options(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--threshold", type=float, default=0.5, help="probability of harm (default: 0.5)")
    parser.add_argument("--shard", metavar="I/N", help="judge every Nth record from number I on; I from 0 to N - 1")
    return parser
