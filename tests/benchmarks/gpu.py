"""How fast one GPU trains a model of LLaVA-1.5-7B's shape, and what it takes: random weights, nothing is downloaded.

    python tests/benchmarks/gpu.py --out gpu.json
    python tests/benchmarks/gpu.py --tiny --device cpu

Every combination of adapters or full fine-tuning, micro-batch, attention kernel, padded or padding-free rows, and
activation checkpointing off or on, in the precisions of bf16-mixed: samples and real tokens a second, share of the peak
(model FLOPs of the real tokens, what is recomputed not counted, over the best matrix product measured in the same run),
peak memory, and what the planner said of it. A combination that does not fit says so, and the run goes on. Lengths are
drawn by seed and not measured on data; every second sample has a picture. Aims on one H200-class GPU: 45 % at 7B for
adapters and in full, padding-free 1.3 times padded.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

sys.path[:0] = [str(Path(__file__).parents[level]) for level in (1, 2)]

from result import write  # noqa: E402
from tiny import VISION, ask, draw, language_model, save_tokenizer, talk  # noqa: E402

from vlsafe import ComposedVLLM, SafetyFineTuning  # noqa: E402
from vlsafe.conversation import ImageRef, assistant, user  # noqa: E402
from vlsafe.data.collate import Batch, Collate  # noqa: E402
from vlsafe.data.encoding import Encoded, Encoding  # noqa: E402
from vlsafe.models.components import Components, Tuning  # noqa: E402
from vlsafe.models.summary import parameter_groups  # noqa: E402
from vlsafe.planning.memory import GIB, Checkpointing, Machine, needs  # noqa: E402
from vlsafe.planning.shape import Shape  # noqa: E402
from vlsafe.planning.skeleton import skeleton  # noqa: E402
from vlsafe.planning.workload import Load, Workload  # noqa: E402
from vlsafe.strategies.attention import available  # noqa: E402

LLAMA_7B = dict(
    vocab_size=32064, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=32, max_position_embeddings=4096,
)  # fmt: skip
CLIP_L = dict(
    hidden_size=1024,
    intermediate_size=4096,
    num_hidden_layers=24,
    num_attention_heads=16,
    image_size=336,
    patch_size=14,
)


class RandomOnDevice(ComposedVLLM):
    """Random weights, drawn on the device in the precision in which they are used: seconds for 7B, not minutes."""

    device = torch.device("cpu")

    def load_model(self) -> PreTrainedModel:
        model = skeleton(self).to_empty(device=self.device)
        model.initialize_weights()
        return model


@dataclass(frozen=True)
class Cell:
    train: str
    rows: int
    attention: str
    padding_free: bool
    checkpointing: bool


@dataclass
class Bench:
    """Where and on what: ``folder`` keeps tokenizer and pictures, ``ceiling`` is in FLOPs a second."""

    device: torch.device
    tiny: bool
    steps: int
    folder: Path
    ceiling: float

    def module(self, cell: Cell) -> SafetyFineTuning:
        tokenizer = save_tokenizer(self.folder / "tokenizer")
        backbone = RandomOnDevice(
            "clip",
            language_model(tokenizer, **({} if self.tiny else LLAMA_7B)),
            vision_weights=VISION["clip"] if self.tiny else CLIP_L,
            attention=cell.attention,
            dtype="bfloat16",
        )
        backbone.device = self.device
        language = Tuning("lora", 1e-4, rank=128, alpha=256) if cell.train == "lora" else Tuning("full", 2e-5)
        components = Components(Tuning(), Tuning("full", 2e-5), language)
        return SafetyFineTuning(backbone, components, activation_checkpointing=cell.checkpointing)

    def samples(self, module: SafetyFineTuning, count: int) -> list[Encoded]:
        """Questions of 20 to 400 tokens and answers of 20 to 300, short ones more often; every second has a picture."""
        draws, encoding = random.Random(0), Encoding(module.backbone.processor)
        picture, longest = draw(self.folder, size=(336, 336)), 40 if self.tiny else 400

        def words(most: int) -> str:
            return "a" * round(20 * (most / 20) ** draws.random())

        def sample(number: int) -> Encoded:
            asked, answered = words(longest), words(longest * 3 // 4)
            return encoding.sample(_talk(None if number % 2 else picture, asked, answered))

        return [sample(number) for number in range(count)]


def _talk(picture: ImageRef | None, asked: str, answered: str) -> Any:
    return ask(asked, answered, picture) if picture else talk(user(asked), assistant(answered))


def matmul_ceiling(device: torch.device, size: int) -> float:
    """FLOPs a second of the fastest of ten bfloat16 products of two square matrices."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    a @ b
    return 2 * size**3 / min(seconds(lambda: a @ b, device) for _ in range(10))


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Of ``work``, until the device has done all of it."""
    _wait(device)
    began = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def planned(module: SafetyFineTuning, cell: Cell, samples: list[Encoded]) -> tuple[int, float]:
    """Bytes that the planner expects at most, and FLOPs of one sample's real tokens, forward and backward."""
    sight = next(sample.pixels for sample in samples if sample.pixels)
    work = Workload(
        cell.rows, [len(s.input_ids) for s in samples], [s.supervised for s in samples],
        [bool(s.pixels) for s in samples], sight, len(samples), cell.padding_free, "drawn",
    )  # fmt: skip
    shape = Shape(module, "bf16-mixed")
    traced = shape.traced(work, work.heaviest(), cell.checkpointing)
    checkpointing: Checkpointing = "full" if cell.checkpointing else "off"
    row = needs("single", checkpointing, shape.sizes, traced, Machine(1, 1, 1, 1, 1), accumulates=False)
    lengths, count = work.tokens, len(samples)
    mean = Load(count, round(sum(lengths) / count), sum(work.supervised), sum(work.pictured))
    return row.total, shape.traced(work, mean, checkpointing=False).flops / count


def measured(bench: Bench, cell: Cell) -> dict[str, Any]:
    """One combination, after two steps that are not counted. Out of memory is a result, not an error."""
    module = bench.module(cell)
    samples = bench.samples(module, cell.rows * bench.steps)
    expected, flops = planned(module, cell, samples)
    collate = Collate(module.backbone.processor.tokenizer.pad_token_id, padding_free=cell.padding_free)
    batches = [collate(samples[at : at + cell.rows]) for at in range(0, len(samples), cell.rows)]
    found: dict[str, Any] = asdict(cell) | {"planned_gib": expected / GIB}
    try:
        took = _trained(bench, module, [batch.to(bench.device) for batch in batches])
    except torch.cuda.OutOfMemoryError:
        return found | {"out_of_memory": True}
    tokens = sum(len(sample.input_ids) for sample in samples)
    return found | {
        "samples_per_s": len(samples) / took,
        "tokens_per_s": tokens / took,
        "mfu": flops * len(samples) / took / bench.ceiling,
        "peak_gib": torch.cuda.max_memory_allocated() / GIB if bench.device.type == "cuda" else None,
    }


def _trained(bench: Bench, module: SafetyFineTuning, batches: list[Batch]) -> float:
    """Seconds of one optimizer step a batch."""
    module.configure_model()
    model = module.to(bench.device).train().model
    assert model is not None and module.plan is not None
    groups = parameter_groups(model, module.plan, module.components, 0.0)
    optimizer = torch.optim.AdamW(groups, fused=True)

    def step(batch: Batch) -> None:
        with torch.autocast(bench.device.type, torch.bfloat16, cache_enabled=False):
            told, zero = module._with_blank_image(batch)
            sums = module.objective(model, told)
        ((sums.loss + zero) / sums.sample_tokens.sum()).backward()
        torch.nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def steps(some: list[Batch]) -> None:
        for batch in some:
            step(batch)

    steps(batches[:2])
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    return seconds(lambda: steps(batches), bench.device)


def row(found: dict[str, Any]) -> str:
    named = f"{_named(found)}planned {found['planned_gib']:6.1f} GiB  "
    if found.get("out_of_memory"):
        return named + "out of memory"
    peak = "not measured" if found["peak_gib"] is None else f"{found['peak_gib']:6.1f} GiB"
    return named + (
        f"peak {peak}  {found['samples_per_s']:8.2f} samples/s  {found['tokens_per_s']:9.0f} tokens/s  "
        f"MFU {found['mfu']:6.1%}"
    )


def _named(found: dict[str, Any]) -> str:
    layout = "padding-free" if found["padding_free"] else "padded"
    named = f"{found['train']:<5}{found['rows']:>4}  {found['attention']:<18}{layout:<13}"
    return named + f"{'recomputed' if found['checkpointing'] else 'kept':<11}"


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a model of a few KB, to see that all of this runs")
    parser.add_argument("--train", nargs="+", default=["lora", "full"])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32], help="micro-batches")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args(argv)
    device, kernels = torch.device(options.device), [n for n, runs in available().items() if runs and n != "eager"]
    cells = product(options.train, options.rows, kernels, (False, True), (False, True))
    found = []
    with tempfile.TemporaryDirectory() as folder:
        ceiling = matmul_ceiling(device, 256 if options.tiny else 8192)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
        print(f"{name}, torch {torch.__version__}, ceiling {ceiling / 1e12:.3g} TFLOP/s", flush=True)
        bench = Bench(device, options.tiny, options.steps, Path(folder), ceiling)
        for cell in (Cell(*fields) for fields in cells):
            found.append(measured(bench, cell))
            print(row(found[-1]), flush=True)
            gc.collect()
            torch.cuda.empty_cache()
    if options.out:
        trained = [each for each in found if not each.get("out_of_memory")]
        figures = {f"{' '.join(_named(each).split())}, samples/s": each["samples_per_s"] for each in trained}
        write(options.out, "gpu", {"device": name, "tiny": options.tiny}, figures, ceiling=ceiling, rows=found)
    return found


if __name__ == "__main__":
    main()
