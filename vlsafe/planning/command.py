"""The verb ``plan``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from vlsafe.cli import VlsafeCLI, built
from vlsafe.errors import ConfigError, DataError
from vlsafe.planning.estimate import Estimate, Run, estimated
from vlsafe.planning.memory import GIB, Machine
from vlsafe.planning.page import print_plan
from vlsafe.planning.shape import Shape
from vlsafe.planning.slurm import sbatch
from vlsafe.planning.workload import Workload, assumed, sampled

_HERE = ("accelerator=cpu", "devices=1", "num_nodes=1", "strategy=auto", "precision=32-true", "logger=false")
"""The Trainer that can be built on the machine that plans; what the config asks for is read, not built."""


def main(argv: list[str]) -> int:
    """``plan --config C [--gpus N --memory GIB]``. Raises VlsafeError; returns the exit status."""
    options, rest = _parser().parse_known_args(argv)
    run = built([*rest, *(f"--trainer.{setting}" for setting in _HERE)])
    asked = run.parser.parse_args(rest).trainer
    machine = Machine(
        options.gpus or _devices(asked), options.gpus_per_node, round(options.memory * GIB), options.tflops, options.mfu
    )
    plan = estimate(run, asked, machine, options.tokens, options.samples)
    if options.json:
        print(json.dumps(plan.as_json(), indent=1))
    else:
        print_plan(plan, Console())
    if options.slurm is not None:
        options.slurm.write_text(sbatch(plan, rest), encoding="utf-8")
        print(f"wrote {options.slurm}: sbatch {options.slurm}", file=sys.stderr)
    return 0


def estimate(cli: VlsafeCLI, asked: Any, machine: Machine, tokens: int | None, samples: int | None) -> Estimate:
    """The plan of a config.

    Args:
        cli: what it builds on this machine.
        asked: its ``trainer`` section as written.
        tokens, samples: lengths and number of samples, in place of the data.
    """
    precision = str(asked.precision or "32-true")
    shape = Shape(cli.model, precision)
    sharded = Shape(cli.model, precision, sharded=True) if shape.autocast is not None and machine.gpus > 1 else shape
    workload = _workload(cli, tokens, samples)
    run = Run(
        precision=precision,
        global_batch=workload.rows * asked.accumulate_grad_batches * _devices(asked),
        max_epochs=asked.max_epochs,
        max_steps=asked.max_steps,
        limit=1.0 if asked.limit_train_batches is None else asked.limit_train_batches,
    )
    return estimated(shape, sharded, workload, run, machine)


def _workload(cli: VlsafeCLI, tokens: int | None, samples: int | None) -> Workload:
    data, backbone = cli.datamodule, cli.model.backbone
    if tokens is None:
        try:
            return sampled(data, backbone)
        except DataError as error:
            hint = "to plan without the data, say what they are like: --tokens MEAN --samples NUMBER"
            raise DataError([*error.problems, hint]) from error
    number = samples or data.samples
    if tokens < 1 or number is None or number < 1:
        raise ConfigError("--tokens stands in place of the data; give it and --samples, both at least 1")
    return assumed(data, backbone, tokens, number)


def _devices(asked: Any) -> int:
    """GPUs of the config; what it leaves to the machine (``auto``, -1) counts as one a node."""
    devices = asked.devices
    if isinstance(devices, str) and devices.isdecimal():
        devices = int(devices)
    number = len(devices) if isinstance(devices, list) else devices if isinstance(devices, int) and devices > 0 else 1
    return number * asked.num_nodes


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
    parser.add_argument("--tokens", type=int, help="tokens of a sample, in place of looking at the data")
    parser.add_argument("--samples", type=int, help="samples of an epoch, beside --tokens")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    parser.add_argument("--slurm", type=Path, metavar="FILE", help="also write a batch file for SLURM")
    return parser
