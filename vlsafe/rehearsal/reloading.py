"""A process that loads exported models with plain transformers and PEFT, and does not import vlsafe.

It is run by its path, imports once, and forks for each job, which comes as a line of JSON over a local socket:
``{"model": DIR, "adapter": DIR or null, "base": DIR or null}``. The answer is a line of JSON: ``error``, empty where
the model came back whole, and ``note``, what was shown.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

NEAR = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Dtype -> how far logits of an adapter may lie from those of the merged model, as a share of their size."""


def shown(job: dict[str, Any]) -> str:
    """What was shown of an export; raises where something is wrong with it."""
    folder = Path(job["model"])
    ours = _with_our_classes(folder)
    model, report = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto", output_loading_info=True)
    wrong = {kind: sorted(map(str, names)) for kind, names in report.items() if names}
    if wrong:
        raise ValueError(f"loaded with {wrong}")
    inputs = _inputs(AutoProcessor.from_pretrained(folder), model.dtype)
    logits = _logits(model, inputs)
    if not torch.isfinite(logits).all():
        raise ValueError("its logits are not finite")
    answer = model.eval().generate(**inputs, max_new_tokens=2, do_sample=False)
    if answer.shape[1] <= inputs["input_ids"].shape[1]:
        raise ValueError("it generates nothing")
    notes = ["after `import vlsafe.models.encoders`, as its classes are ours" if ours else "without vlsafe"]
    if job["base"] is not None:
        notes.append(_attached(job, inputs, logits, model.dtype))
    return "; ".join(notes)


def _with_our_classes(folder: Path) -> bool:
    """Whether the checkpoint needs classes of vlsafe; if so, imports them as its card says."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kinds = {part.get("model_type") for part in (config, *(v for v in config.values() if isinstance(v, dict)))} - {None}
    if all(kind in CONFIG_MAPPING_NAMES for kind in kinds):
        assert "vlsafe" not in sys.modules
        return False
    sys.path.insert(0, str(Path(__file__).parents[2]))
    import vlsafe.models.encoders
    import vlsafe.models.minigpt  # noqa: F401

    return True


def _attached(job: dict[str, Any], inputs: dict[str, Any], merged: torch.Tensor, dtype: torch.dtype) -> str:
    base = AutoModelForImageTextToText.from_pretrained(job["base"], dtype=dtype)
    tuned = PeftModel.from_pretrained(base, job["adapter"])
    far = float((_logits(tuned, inputs) - merged).norm() / merged.norm())
    if not far < NEAR[merged.dtype]:
        raise ValueError(f"logits of base and adapter in PEFT lie {far:.1%} from those of the merged model")
    return f"PEFT adapter on its base: logits within {far:.1e}"


def _inputs(processor: Any, dtype: torch.dtype) -> dict[str, Any]:
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which colour is it?"}]}]
    text = processor.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    found = processor(images=[Image.new("RGB", (48, 32), "red")], text=text, return_tensors="pt")
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in found.items()}


@torch.inference_mode()
def _logits(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    logits: torch.Tensor = model.eval()(**inputs).logits
    return logits


def serve(address: str) -> None:
    torch.set_num_threads(1)
    AutoConfig.for_model("llava")  # what is imported late is imported before the first fork
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a job's process has ended
    parent = os.getppid()
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(f"{address}.partial")
        door.listen()
        door.settimeout(5)
        os.rename(f"{address}.partial", address)
        while os.getppid() == parent:
            with suppress(TimeoutError):
                connection, _ = door.accept()
                if os.fork() == 0:
                    _answer(connection)
                connection.close()


def _answer(connection: socket.socket) -> None:
    status = 1
    try:
        with connection.makefile("rw", encoding="utf-8") as file:
            try:
                told = {"error": "", "note": shown(json.loads(file.readline()))}
            except Exception:
                told = {"error": "\n".join(traceback.format_exc().rstrip().splitlines()[-8:]), "note": ""}
            file.write(json.dumps(told) + "\n")
        status = 0
    finally:
        os._exit(status)


if __name__ == "__main__":
    serve(sys.argv[1])
