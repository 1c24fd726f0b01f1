"""Trains two steps and prints what was planned and what the process held at most, in bytes, as JSON."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

import lightning as L
import psutil
from tiny import VISION, alpaca_file, language_model, llava_file, save_tokenizer

from vlsafe import ComposedVLLM, ConversationData, Part, SafetyFineTuning
from vlsafe.models.components import Components, Tuning
from vlsafe.planning.memory import Machine, needs
from vlsafe.planning.shape import Shape
from vlsafe.planning.workload import sampled

ROWS = 8


def main(request: dict[str, Any]) -> None:
    folder = Path(request["folder"])
    answer = "a picture of a red wall. " * 8
    parts = {
        "pictures": Part(f"llava:{llava_file(folder / 'llava.json', ROWS)}", share=0.5),
        "text": Part(f"alpaca:{alpaca_file(folder / 'alpaca.json', ROWS, answer)}", share=0.5),
    }
    language = language_model(save_tokenizer(folder / "tokenizer"), **request["model"], num_key_value_heads=4)
    tuning = Tuning(request["train"], 1e-3)
    components = Components(Tuning(), Tuning("full", 1e-3), tuning)
    backbone = ComposedVLLM("clip", language, vision_weights=VISION["clip"], attention="sdpa")

    def module() -> SafetyFineTuning:
        return SafetyFineTuning(backbone, components, activation_checkpointing=request["checkpointing"])

    def data() -> ConversationData:
        return ConversationData(parts, samples=2 * ROWS, batch_size=ROWS)

    def fit(tuned: SafetyFineTuning) -> None:
        quiet = dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary", "logger"), False)
        trainer = L.Trainer(accelerator="cpu", devices=1, max_steps=2, use_distributed_sampler=False, **quiet)
        trainer.fit(tuned, data())

    workload = sampled(data(), backbone)
    shape = Shape(module(), "32-true")
    traced = shape.traced(workload, workload.heaviest(), request["checkpointing"])
    checkpointing = "full" if request["checkpointing"] else "off"
    planned = needs("single", checkpointing, shape.sizes, traced, Machine(1, 1, 1, 1, 1), accumulates=False)
    del shape
    fit(_small(folder))  # what torch and Lightning keep for themselves is there before the measure begins
    gc.collect()
    process = psutil.Process()
    before = process.memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    fit(module())
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(
        json.dumps({"planned": planned.total, "measured": int(peak.split()[1]) * 1024 - before, "parts": str(planned)})
    )


def _small(folder: Path) -> SafetyFineTuning:
    tiny = ComposedVLLM("clip", language_model(folder / "tokenizer"), vision_weights=VISION["clip"], attention="sdpa")
    return SafetyFineTuning(tiny, Components(Tuning(), Tuning("full", 1e-3), Tuning("lora", 1e-3)))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
