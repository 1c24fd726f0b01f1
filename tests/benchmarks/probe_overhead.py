"""What share of the training the probes take, by processor time, so that it means something on a shared machine too.

    OMP_NUM_THREADS=1 python tests/benchmarks/probe_overhead.py [--steps 40] [CONFIG OVERLAY...]

Trains the quickstart (or the configs that are named, each laid over the last) for so many steps, without evaluation,
with both probes as sweeps/overlays/tracked.yaml has them, but looking four times within these steps, so that steps and
probes alternate. Prints what a step and a probe cost, what a probe makes ready at the start spread over its looks, and
the share that it has at its own interval (that of the ForgettingProbe is its default of 100 steps). Aim: at most 5 %
for the ForgettingProbe; exit status 1 when it takes more. Needs `python -m vlsafe fetch small`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import yaml

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

from callbacks import probing  # noqa: E402
from callbacks.probing import Probe  # noqa: E402
from vlsafe.cli import built  # noqa: E402

MOST = 0.05
LOOKS = 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", default=["experiments/quickstart.yaml"], metavar="CONFIG")
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    probing.time = SimpleNamespace(perf_counter=time.process_time)  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        shares = measured(options.configs, options.steps, Path(folder))
    return int(shares["ForgettingProbe"] > MOST)


def measured(configs: list[str], steps: int, folder: Path) -> dict[str, float]:
    """Name of a probe -> its share of the training at its own interval."""
    tracked = yaml.safe_load((ROOT / "sweeps/overlays/tracked.yaml").read_text(encoding="utf-8"))
    callbacks = tracked["trainer"]["callbacks"]
    intervals = {}
    for callback in callbacks:
        name = callback["class_path"].rpartition(".")[2]
        intervals[name] = 100 if name == "ForgettingProbe" else callback["init_args"]["every_n_steps"]
        callback["init_args"]["every_n_steps"] = steps // LOOKS
    overlay = folder / "probes.yaml"
    overlay.write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks, "max_steps": steps, "max_epochs": -1}}))
    argv = [f"--config={path}" for path in (*configs, overlay)]
    run = built([*argv, f"--run_dir={folder / 'run'}", "--evaluation.benchmarks=[]", "--checkpoints.every=1000000"])
    run.trainer.fit(run.model, run.datamodule)
    probes = [callback for callback in run.trainer.callbacks if isinstance(callback, Probe)]
    training = probes[0].seconds / probes[0].training_share - sum(probe.seconds for probe in probes)
    step = training / steps
    print(f"a step: {step:.2f} s")
    shares = {}
    for probe in probes:
        name, each = type(probe).__name__, probe.seconds / probe.probes
        shares[name] = each / (each + intervals[name] * step)
        print(
            f"{name}: {probe.probes} probes of {each:.2f} s; every {intervals[name]} steps {100 * shares[name]:.2f} %"
        )
    return shares


if __name__ == "__main__":
    sys.exit(main())
