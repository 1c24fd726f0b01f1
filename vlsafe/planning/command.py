"""The verb ``plan``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from vlsafe.cli import built
from vlsafe.models.loading import check_precision
from vlsafe.planning.memory import GIB, Machine
from vlsafe.planning.page import print_plan
from vlsafe.planning.requested import devices_of, planned_run
from vlsafe.planning.slurm import sbatch

_HERE = ("accelerator=cpu", "devices=1", "num_nodes=1", "strategy=auto", "precision=32-true", "logger=false")
"""The Trainer that can be built on the machine that plans; what the config asks for is read, not built."""


def main(argv: list[str]) -> int:
    """``plan --config C [--gpus N --memory GIB]``. Raises VlsafeError; returns the exit status."""
    options, rest = _parser().parse_known_args(argv)
    run = built([*rest, *(f"--trainer.{setting}" for setting in _HERE)])
    asked = run.parser.parse_args(rest).trainer
    check_precision(str(asked.precision or "32-true"), run.model.backbone)
    devices = devices_of(asked)
    machine = Machine(
        options.gpus or devices,
        options.gpus_per_node,
        round(options.memory * GIB),
        options.tflops,
        options.mfu,
        options.link,
        options.network,
    )
    plan = planned_run(run.model, run.datamodule, asked, devices, machine, run.answers, options.tokens, options.samples)
    if options.json:
        print(json.dumps(plan.as_json(), indent=1))
    else:
        print_plan(plan, Console(width=None if sys.stdout.isatty() else 160))
    if options.slurm is not None:
        options.slurm.write_text(sbatch(plan, rest, run.datamodule.num_workers), encoding="utf-8")
        print(f"wrote {options.slurm}: sbatch {options.slurm}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vlsafe plan",
        usage="vlsafe plan --config C [--config OVERLAY] [--a.b=c] [--gpus N] [--memory GIB] [options]",
        description="Reads a config, and its data where they are there; loads no weights. Writes what a run of it will "
        "need to standard output: parameters, memory per GPU for each strategy, time, disk, and the least sharding "
        "that fits. All of it is an estimate; docs/planning.md says how it is made.",
        allow_abbrev=False,
    )
    parser.add_argument("--gpus", type=int, help="in all; default: the config's devices x num_nodes")
    parser.add_argument("--gpus-per-node", type=int, default=8, metavar="N", help="default: 8")
    parser.add_argument("--memory", type=float, default=80, metavar="GIB", help="of one GPU, default: 80")
    parser.add_argument(
        "--tflops", type=float, default=989, help="peak of one GPU, default: 989 (H100 and H200, dense bf16; A100: 312)"
    )
    parser.add_argument("--mfu", type=float, default=0.45, help="share of the peak that is reached, default: 0.45")
    parser.add_argument(
        "--link",
        type=float,
        default=450,
        metavar="GB/S",
        help="a GPU sends to others of its node, default: 450 (H100 and H200, NVLink 4; A100: 300; PCIe 5: 64)",
    )
    parser.add_argument(
        "--network",
        type=float,
        default=50,
        metavar="GB/S",
        help="a GPU sends to other nodes, default: 50 (a network card of 400 Gb/s for each GPU)",
    )
    parser.add_argument("--tokens", type=int, help="tokens of a sample, in place of looking at the data")
    parser.add_argument("--samples", type=int, help="samples of an epoch, beside --tokens")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    parser.add_argument("--slurm", type=Path, metavar="FILE", help="also write a batch file for SLURM")
    return parser
