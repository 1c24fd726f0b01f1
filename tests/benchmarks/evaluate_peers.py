"""Answers a second: the official loop, Hugging Face's batched generate, and vlsafe, on the same items.

    python -m vlsafe fetch small
    python tests/benchmarks/evaluate_peers.py [--model DIR] [--items 48] [--turn 48] [--batch-size 16]

The *official* loop is that of VLGuard's script: one item at a time, preprocessed and generated alone, with the KV
cache. *Batched* is what a user of transformers would write: the processor on lists of text and of pictures, left
padding, in the order of the file, text-only items in batches of their own. Without --model the quickstart's parts are
joined, with an untrained projector. Greedy, fp32. Aim: vlsafe at least 4 times the official loop, the same answers.
Exit status 1 when the answers differ or the aim is missed. On a machine that others use, only ratios of processor time
mean something; the ways take turns of --turn items, so that all of them meet the same neighbours.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path[:0] = [str(Path(__file__).parents[2])]

from result import write  # noqa: E402

from vlsafe import ComposedVLLM, PretrainedVLLM  # noqa: E402
from vlsafe.answering import Decoding  # noqa: E402
from vlsafe.conversation import Conversation  # noqa: E402
from vlsafe.data.encoding import Encoding  # noqa: E402
from vlsafe.data.images import open_image  # noqa: E402
from vlsafe.evaluation.benchmarks.advbench import AdvBench  # noqa: E402
from vlsafe.evaluation.benchmarks.easy_vqa import EasyVQA  # noqa: E402
from vlsafe.evaluation.benchmarks.vlguard import VLGuard  # noqa: E402
from vlsafe.models.backbones.base import Backbone  # noqa: E402
from vlsafe.models.responder import ModelResponder, end_tokens  # noqa: E402

AIM = 4.0
Way = Callable[[Sequence[Conversation]], list[str]]


def quickstart() -> Backbone:
    """The parts of experiments/quickstart.yaml."""
    return ComposedVLLM(
        "efficientnet_lite0",
        "cache:smollm2-135m-instruct",
        projector="mlp2x_gelu",
        image_fit="pad",
        image_size=128,
        template="chatml",
        dtype="float32",
    )


def prompts_of(count: int, drawn: str) -> list[Conversation]:
    """A third each of drawn pictures, text alone, and shapes."""
    each = max(1, count // 9)  # the drawn set has three variants
    sets = [
        VLGuard(drawn, limit=each),
        AdvBench(f"{drawn}/text_harm_test.csv", limit=3 * each),
        EasyVQA("cache:easy-vqa", limit=3 * each),
    ]
    return [item.prompt() for benchmark in sets for item in benchmark.items()]


def generate(model: Any, backbone: Backbone, prompts: Sequence[Conversation], most: int) -> list[str]:
    """The processor and ``generate`` of transformers, on prompts that all have a picture or all have none."""
    processor = backbone.processor
    processor.tokenizer.padding_side = "left"
    texts = [Encoding(processor, backbone.system_prompt).prompt(each).text for each in prompts]
    pictures = [[open_image(ref) for ref in each.images] for each in prompts]
    images = {"images": pictures} if any(pictures) else {}
    inputs = processor(text=texts, **images, padding=True, add_special_tokens=False, return_tensors="pt")
    with torch.inference_mode():
        tokens = model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=most,
            min_new_tokens=1,
            use_cache=True,
            eos_token_id=end_tokens(model, processor),
            pad_token_id=processor.tokenizer.pad_token_id,
        )
    new = tokens[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in processor.tokenizer.batch_decode(new, skip_special_tokens=True)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a Hugging Face directory, such as runs/quickstart/model")
    parser.add_argument("--drawn", default="cache:drawn-safety", help="folder of the drawn safety data")
    parser.add_argument("--items", type=int, default=48)
    parser.add_argument("--turn", type=int, default=48, help="items that one way answers before the next one's turn")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int, default=20)
    parser.add_argument("--out", type=Path, help="JSON for `vlsafe compare`")
    options = parser.parse_args()
    torch.manual_seed(0)  # of the projector
    backbone = PretrainedVLLM(options.model, dtype="float32") if options.model else quickstart()
    model = backbone.load_model().eval()
    prompts, most, size = prompts_of(options.items, options.drawn), options.max_new_tokens, options.batch_size

    def official(asked: Sequence[Conversation]) -> list[str]:
        return [text for each in asked for text in generate(model, backbone, [each], most)]

    def batched(asked: Sequence[Conversation]) -> list[str]:
        texts: dict[str, str] = {}
        for pictured in (True, False):
            alike = [each for each in asked if bool(each.images) == pictured]
            for start in range(0, len(alike), size):
                some = alike[start : start + size]
                texts |= zip((each.id for each in some), generate(model, backbone, some, most), strict=True)
        return [texts[each.id] for each in asked]

    def ours(asked: Sequence[Conversation]) -> list[str]:
        responder = ModelResponder(model, backbone, size)
        found = dict(responder.respond(list(asked), Decoding(max_new_tokens=most)))
        return [found[place].error or found[place].text for place in range(len(asked))]

    ways: dict[str, Way] = {"official loop": official, "batched generate": batched, "vlsafe": ours}
    clock, processor = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
    answers: dict[str, list[str]] = {name: [] for name in ways}
    for way in ways.values():
        way(prompts[:1])  # what is done once is not counted
    for start in range(0, len(prompts), options.turn):
        for name, way in ways.items():
            began, spent = time.perf_counter(), time.process_time()
            answers[name] += way(prompts[start : start + options.turn])
            clock[name] += time.perf_counter() - began
            processor[name] += time.process_time() - spent
    print(f"{len(prompts)} items, batches of {size}, at most {most} new tokens, {torch.get_num_threads()} threads")
    print(f"{'':<18}{'items a second':>16}{'times':>8}{'by processor time':>20}{'answers the same':>19}")
    first = "official loop"
    times = {name: processor[first] / each for name, each in processor.items()}
    for name in ways:
        same = sum(mine == theirs for mine, theirs in zip(answers[name], answers[first], strict=True))
        speed, ratio = len(prompts) / clock[name], clock[first] / clock[name]
        print(f"{name:<18}{speed:>16.2f}{ratio:>8.2f}{times[name]:>20.2f}{f'{same} of {len(prompts)}':>19}")
    if options.out:
        work = {name: getattr(options, name) for name in ("items", "turn", "batch_size", "max_new_tokens")}
        figures = {f"{name}, items/s": len(prompts) / clock[name] for name in ways}
        figures |= {f"{name}, times the official loop by processor time": times[name] for name in ways}
        write(options.out, "evaluate_peers", work, figures)
    return 0 if answers["vlsafe"] == answers[first] and times["vlsafe"] >= AIM else 1


if __name__ == "__main__":
    sys.exit(main())
