"""Trains two steps, or answers prompts, and prints what was planned and what the process held at most, in bytes, as
JSON."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import psutil
import torch
from lightning.pytorch.plugins import MixedPrecision
from tiny import VISION, alpaca_file, language_model, llava_file, save_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from vlsafe import ComposedVLLM, ConversationData, Part, SafetyFineTuning
from vlsafe.answering import Decoding
from vlsafe.conversation import Conversation, user
from vlsafe.models.components import Components, Tuning
from vlsafe.models.responder import ModelResponder
from vlsafe.planning.memory import Machine, needs
from vlsafe.planning.shape import Shape
from vlsafe.planning.workload import Answers, Workload, sampled

ROWS = 8
NEW_TOKENS = 64


def main(request: dict[str, Any]) -> None:
    folder = Path(request["folder"])
    answer = "a picture of a red wall. " * 8
    parts = {
        "pictures": Part(f"llava:{llava_file(folder / 'llava.json', ROWS)}", share=0.5),
        "text": Part(f"alpaca:{alpaca_file(folder / 'alpaca.json', ROWS, answer)}", share=0.5),
    }
    precision = request["precision"]
    kept = "bfloat16" if precision == "bf16-mixed" and request["train"] == "lora" else "float32"
    components = Components(Tuning(), Tuning("full", 1e-3), Tuning(request["train"], 1e-3))
    language = in_files(folder, request["model"], kept)
    backbone = ComposedVLLM("clip", language, vision_weights=VISION["clip"], attention="sdpa", dtype=kept)
    module = partial(SafetyFineTuning, backbone, components, activation_checkpointing=request["checkpointing"])
    data = partial(ConversationData, parts, samples=2 * ROWS, batch_size=ROWS)
    shape, workload = Shape(module(), precision), sampled(data(), backbone)
    if request["answers"]:
        told(*answering(backbone, shape, workload, precision))
        return
    traced = shape.traced(workload, workload.heaviest(), request["checkpointing"])
    checkpointing = "full" if request["checkpointing"] else "off"
    planned = needs("single", checkpointing, shape.sizes, traced, Machine(1, 1, 1, 1, 1), accumulates=False)
    del shape

    def fit(tuned: SafetyFineTuning) -> None:
        quiet = dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary", "logger"), False)
        once = {"accelerator": "cpu", "devices": 1, "max_steps": 2, "use_distributed_sampler": False}
        L.Trainer(precision=precision, **once, **quiet).fit(tuned, data())

    fit(_small(folder, kept))  # what torch and Lightning keep for themselves is there before the measure begins
    told(planned.total, held(lambda: fit(module())))


def in_files(folder: Path, size: dict[str, int], dtype: str) -> str:
    """A language model as recipes name it: drawn in memory, it would be in float32 first."""
    fields = language_model(save_tokenizer(folder / "tokenizer"), **size, num_key_value_heads=4)
    config = LlamaConfig(**{name: value for name, value in fields.items() if name not in ("tokenizer", "model_type")})
    config.vocab_size += 1  # of the picture's token
    LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(folder / "words")
    return str(save_tokenizer(folder / "words"))


def answering(backbone: ComposedVLLM, shape: Shape, workload: Workload, precision: str) -> tuple[int, int]:
    """Bytes, without the model: planned for a batch of prompts of one length, and held for it."""
    question = " what is a picture of a red wall?" * 16
    prompts = [Conversation(str(row), "", (user(f"{row}{question}"),)) for row in range(ROWS)]
    model = backbone.load_model().eval()
    mixed = MixedPrecision("bf16-mixed", "cpu").forward_context if precision == "bf16-mixed" else nullcontext
    responder = ModelResponder(model, backbone, batch_size=ROWS)
    length = len(responder.encoding.prompt(prompts[0]).input_ids)
    answers = Answers(ROWS, NEW_TOKENS)
    texts = replace(workload, tokens=[length], supervised=[1], pictured=[False], sight={}, answers=answers)

    def answer(asked: list[Conversation], new_tokens: int) -> None:
        with mixed():
            found = list(responder.respond(asked, Decoding(max_new_tokens=new_tokens, min_new_tokens=new_tokens)))
        assert {answer.n_tokens for _, answer in found} == {new_tokens}, found

    answer([Conversation("short", "", (user("red"),))], 2)
    return shape.answered(texts), held(lambda: answer(prompts, NEW_TOKENS))


def held(work: Callable[[], None]) -> int:
    """Bytes that the process holds at most meanwhile, over what it holds before."""
    gc.collect()
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    work()
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024 - before


def told(planned: int, measured: int) -> None:
    print(json.dumps({"planned": planned, "measured": measured}))


def _small(folder: Path, dtype: str) -> SafetyFineTuning:
    words = language_model(folder / "tokenizer")
    tiny = ComposedVLLM("clip", words, vision_weights=VISION["clip"], attention="sdpa", dtype=dtype)
    return SafetyFineTuning(tiny, Components(Tuning(), Tuning("full", 1e-3), Tuning("lora", 1e-3)))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
