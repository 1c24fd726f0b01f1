"""Training samples a second: transformers' Trainer, TRL's SFTTrainer and vlsafe, on the same work.

    python -m vlsafe fetch small && pip install -e '.[bench]'
    python tests/benchmarks/train_peers.py --model quickstart --trainable lora --out lora.json
    python tests/benchmarks/train_peers.py --model quickstart --trainable lora --precision 64 --repeats 1
    python -m vlsafe compare old.json lora.json

Every measurement is a process of its own, one at a time; sides take turns in each repeat. All start from the same
weights and see the same samples in the same order, with the same optimizer, precision and trainable set. They must give
the same losses, or exit status is 1, which it never is for a time: with --precision 64 those of 20 steps, vlsafe's to
1e-9; in float32 those of 2 steps to 1e-4, since rounding grows with every step of AdamW. Only the layout differs:
vlsafe trains as the recipe says (samples in one row, logits where they are supervised), the peers on padded rows.
Matched by hand, since losses would differ: the frozen encoder is in eval mode, and TRL's bf16 and recomputing are off.
Samples a second mean something on an idle machine only. On a shared one read the last two columns, samples a second of
processor time and their ratio, with OMP_WAIT_POLICY=PASSIVE, without which waiting threads use processor time too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from result import write

SIDES = ("trainer", "trl", "vlsafe")
TOLERANCE = 1e-4
"""Of losses in float32."""
EXACT = {"trainer": 0.0, "trl": 1e-2, "vlsafe": 1e-9}
"""Of losses in float64. TRL's head keeps its gradients in float32 all the same, so its rounding grows as in float32."""
COMPARED = {32: 2, 64: 20}
"""First steps whose losses are compared, by precision: in float32, AdamW then enlarges what rounding left."""
FIGURES = ("samples/s", "real tokens/s", "supervised tokens/s", "peak MiB", "samples/processor s")


def measured_here(side: str, model: Any, trainable: Any, steps: int, warm: int, precision: int = 32) -> dict[str, Any]:
    """Train in this process; times are those of the steps after the first ``warm``."""
    import torch
    from peer_sides import SIDES as WAYS
    from peer_work import InDouble, build

    from callbacks.throughput import peak_memory

    dtype = {32: torch.float32, 64: torch.float64}[precision]
    with tempfile.TemporaryDirectory() as folder, InDouble() if precision == 64 else nullcontext():
        work = build(model, trainable, steps, Path(folder), dtype)
        trained = WAYS[side](work)
        seconds = trained.ends[-1] - trained.ends[warm - 1]
        used = trained.processor[-1] - trained.processor[warm - 1]
        peak = peak_memory(torch.device("cpu")) / 2**20
        real, supervised = work.tokens(warm)
        samples = (steps - warm) * work.data.batch_size
    values = [samples / seconds, real / seconds, supervised / seconds, peak, samples / used]
    figures = dict(zip(FIGURES, values, strict=True))
    return {"losses": trained.losses, "threads": torch.get_num_threads(), "torch": torch.__version__, **figures}


def measured(side: str, options: argparse.Namespace) -> dict[str, Any] | str:
    """In a new process, so that its memory is its own; the last line of its error where it ends in one."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        asked = ["--model", options.model, "--trainable", options.trainable, "--steps", str(options.steps)]
        asked += ["--warm", str(options.warm), "--precision", str(options.precision)]
        command = [sys.executable, __file__, *asked, "--side", side, "--out", file.name]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["no word"])[-1]
        return json.loads(Path(file.name).read_text())


def difference(losses: list[float], reference: list[float], compared: int = COMPARED[64]) -> float:
    """The largest one over the first steps. Infinite for other lengths or a loss that is not finite."""
    pairs = list(zip(losses, reference, strict=False))[:compared]
    gaps = [abs(one - other) for one, other in pairs]
    same_length = len(losses) == len(reference) and gaps
    return max(gaps) if same_length and all(gap == gap for gap in gaps) else float("inf")


def median(runs: list[dict[str, Any]], figure: str = "samples/s") -> float:
    return statistics.median(run[figure] for run in runs)


def table(runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Median of every figure, the spread of samples a second, and vlsafe's ratio to each side."""
    heads = f"{'real tok/s':>11} {'superv. tok/s':>14} {'peak MiB':>9} {'vlsafe x':>9} {'/cpu s':>9} {'vlsafe x':>9}"
    lines = [f"{'':8} {'samples/s':>10} {'spread':>15} {heads}"]
    ours = runs.get("vlsafe")
    for side, results in runs.items():
        speeds = [run["samples/s"] for run in results]
        spread = f"{min(speeds):.3f}-{max(speeds):.3f}"
        middle = [median(results, figure) for figure in FIGURES]
        ratios = [median(ours, figure) / median(results, figure) if ours else float("nan") for figure in FIGURES]
        line = f"{side:8} {middle[0]:10.3f} {spread:>15} {middle[1]:11.0f} {middle[2]:14.0f} {middle[3]:9.0f}"
        lines.append(f"{line} {ratios[0]:9.2f} {middle[4]:9.3f} {ratios[4]:9.2f}")
    return lines


def run(options: argparse.Namespace) -> int:
    runs: dict[str, list[dict[str, Any]]] = {}
    failed: dict[str, str] = {}
    for repeat in range(options.repeats):
        turn = repeat % len(SIDES)
        for side in (*SIDES[turn:], *SIDES[:turn]):
            if side in failed:
                continue
            print(f"repeat {repeat + 1}: {side}", file=sys.stderr, flush=True)
            result = measured(side, options)
            if isinstance(result, str):
                failed[side] = result
                print(f"{side} did not train this model: {result}")
            else:
                runs.setdefault(side, []).append(result)
    print("\n".join(table(runs)))
    reference = runs["trainer"][0]["losses"] if "trainer" in runs else []
    compared = COMPARED[options.precision]
    gaps = {side: max(difference(r["losses"], reference, compared) for r in results) for side, results in runs.items()}
    for side, results in runs.items():
        later = max(difference(run["losses"], reference, COMPARED[64]) for run in results)
        told = f"by at most {gaps[side]:.1e} in the first {compared} steps, {later:.1e} in {COMPARED[64]}"
        print(f"{side}: losses differ from Trainer's {told}")
    if options.out:
        work = {name: getattr(options, name) for name in ("model", "trainable", "precision", "steps", "warm")}
        figures = {f"{side}, {name}": median(results, name) for side, results in runs.items() for name in FIGURES}
        write(options.out, "train_peers", work, figures, runs=runs, failed=failed, differences=gaps)
    unequal = [s for s, gap in gaps.items() if gap > (EXACT[s] if options.precision == 64 else TOLERANCE)]
    return int(bool({"vlsafe", "trainer"} & failed.keys() or unequal))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("tiny", "30m", "quickstart"), default="tiny")
    parser.add_argument("--trainable", choices=("lora", "full"), default="lora")
    parser.add_argument("--precision", type=int, choices=(32, 64), default=32, help="bits; 64 judges equality exactly")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warm", type=int, default=5, help="first steps that are not timed (default 5)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON of every run")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not 0 < options.warm < options.steps:
        parser.error("--warm must be at least 1 and below --steps")
    if options.side:
        work = (options.model, options.trainable, options.steps, options.warm, options.precision)
        result = measured_here(options.side, *work)
        options.out.write_text(json.dumps(result))
        return 0
    return run(options)


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2])]
    sys.exit(main())
