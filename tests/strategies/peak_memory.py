"""How much memory a process of two takes at most to load a checkpoint under fsdp2, answer, train one step and export.

    python tests/strategies/peak_memory.py FOLDER write
    torchrun --standalone --nproc-per-node 2 tests/strategies/peak_memory.py FOLDER pieces|whole

with the project's root, ``tests`` and ``tests/models`` on the path. Prints bytes as JSON, a line a process: of the
checkpoint (``model``), and of the peak until training starts (``loaded``), while both answer then (``answered``), until
training ends (``trained``) and after the export (``exported``), over what the process held after such a run of a model
of a few KB. ``whole`` reads the checkpoint as strategies do that cannot
read it in pieces.
"""

from __future__ import annotations

import contextlib
import gc
import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning as L
import psutil
import torch
from fitting import FROZEN, LORA, data, files, trainer
from tiny import VISION, language_model, save_tokenizer, talk

from vlsafe import ComposedVLLM, PretrainedVLLM, SafetyFineTuning
from vlsafe.answering import Decoding
from vlsafe.conversation import user
from vlsafe.evaluation.sharing import Processes
from vlsafe.measuring import together
from vlsafe.models.components import Components
from vlsafe.models.export import export_model
from vlsafe.models.responder import ModelResponder
from vlsafe.strategies import STRATEGIES

SIZES = {
    "small": dict(),
    "large": dict(hidden_size=384, intermediate_size=1056, num_hidden_layers=43, num_attention_heads=6),
}
"""The large one has 43 blocks of 7 MB in float32."""


def write(folder: Path) -> None:
    files(folder)
    tokenizer = save_tokenizer(folder / "tokenizer")
    for name, size in SIZES.items():
        language = language_model(tokenizer, **size, num_key_value_heads=size.get("num_attention_heads", 2))
        backbone = ComposedVLLM("clip", language, vision_weights=VISION["clip"], attention="sdpa")
        backbone.load_model().save_pretrained(folder / name, max_shard_size="100MB")
        backbone.processor.save_pretrained(folder / name)


def train(folder: Path, name: str, at_start: L.Callback | None = None) -> None:
    backbone = PretrainedVLLM(str(folder / name), attention="sdpa", dtype="float32")
    tuned = SafetyFineTuning(backbone, Components(FROZEN, FROZEN, LORA), activation_checkpointing=True)
    made = trainer(
        folder, devices=2, strategy=STRATEGIES["fsdp2"](), max_steps=1, callbacks=[at_start] if at_start else []
    )
    made.fit(tuned, datamodule=data(folder, batch_size=1))


class Peaks(L.Callback):
    """``at``: bytes that the process held at most until training started, while all answered then, until training
    ended, and while the model was exported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.at: dict[str, int] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.at["loaded"] = peak()
        responder = ModelResponder(pl_module.model, pl_module.backbone)
        responder.identity()

        def ask(processes: Processes) -> None:
            mine = processes.share([talk(user(text)) for text in ("hi", "and a longer one", "so")])
            assert not any(answer.error for _, answer in responder.respond(list(mine), Decoding(2)))
            processes.done()

        together(trainer, pl_module, ask)
        self.at["answered"] = peak()

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.at["trained"] = peak()
        export_model(pl_module, self.folder / "exported", card="")
        self.at["exported"] = peak()


def peak() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main(folder: Path, how: str) -> None:
    if how == "write":
        return write(folder)
    torch.set_num_threads(1)
    as_ever = patch("vlsafe.models.backbones.pretrained.opened", return_value=None)
    with as_ever if how == "whole" else contextlib.nullcontext():
        train(folder, "small")  # what torch and gloo keep for themselves is there before the measure begins
        gc.collect()
        before = psutil.Process().memory_info().rss
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        peaks = Peaks(folder)
        train(folder, "large", peaks)
    model = sum(file.stat().st_size for file in (folder / "large").glob("*.safetensors"))
    told = {name: bytes - before for name, bytes in peaks.at.items()}
    print(json.dumps({"rank": torch.distributed.get_rank(), "model": model} | told), flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
