"""What share of the training time the probes take at the intervals of the shipped recipes.

    python tests/benchmarks/probe_overhead.py [--steps 300] [CONFIG OVERLAY...]

Trains the quickstart (or the configs that are named, each laid over the last) for so many steps, without evaluation,
with both probes as sweeps/overlays/tracked.yaml has them, and prints for each how often it looked, its seconds and its
share. Aim: at most 5 % for the ForgettingProbe at its default interval of 100 steps; exit status 1 when it takes more.
Needs `python -m vlsafe fetch small`, and a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

from callbacks.probing import Probe  # noqa: E402
from vlsafe.cli import built  # noqa: E402

MOST = 0.05


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", default=["experiments/quickstart.yaml"], metavar="CONFIG")
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shares = measured(options.configs, options.steps, Path(folder))
    return int(shares["ForgettingProbe"] > MOST)


def measured(configs: list[str], steps: int, folder: Path) -> dict[str, float]:
    """Name of a probe -> its share of the training time."""
    tracked = yaml.safe_load((ROOT / "sweeps/overlays/tracked.yaml").read_text(encoding="utf-8"))
    callbacks = tracked["trainer"]["callbacks"]
    for callback in callbacks:
        if callback["class_path"] == "callbacks.ForgettingProbe":
            callback["init_args"]["every_n_steps"] = 100
    overlay = folder / "probes.yaml"
    overlay.write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks, "max_steps": steps, "max_epochs": -1}}))
    argv = [f"--config={path}" for path in (*configs, overlay)]
    run = built([*argv, f"--run_dir={folder / 'run'}", "--evaluation.benchmarks=[]", "--checkpoints.every=1000000"])
    run.trainer.fit(run.model, run.datamodule)
    probes = [callback for callback in run.trainer.callbacks if isinstance(callback, Probe)]
    for probe in probes:
        print(
            f"{type(probe).__name__}: every {probe.every_n_steps} steps, {probe.probes} probes, {probe.seconds:.1f} s"
        )
        print(f"  {100 * probe.training_share:.2f} % of the training time")
    return {type(probe).__name__: probe.training_share for probe in probes}


if __name__ == "__main__":
    sys.exit(main())
