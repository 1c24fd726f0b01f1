"""Conversions done once, after which a model loads from its folder with ``from_pretrained`` in well under a second."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from vlsafe.fetch.asset import FetchError


def smollm2(raw: Path, ready: Path) -> None:
    """The 4-bit GGUF file to a Hugging Face folder with fp32 safetensors and the tokenizer with its chat template.

    Without ``dequantize`` the model would load but refuse to be saved. Raises FetchError when ``gguf`` is missing.
    """
    if importlib.util.find_spec("gguf") is None:
        raise FetchError("smollm2-135m-instruct: reading GGUF files needs a package; run: pip install 'vlsafe[small]'")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(raw, gguf_file="model.gguf")
    model = AutoModelForCausalLM.from_pretrained(
        raw, gguf_file="model.gguf", dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(ready)
    tokenizer.save_pretrained(ready)
    _finish(raw, ready)


def efficientnet_lite0(raw: Path, ready: Path) -> None:
    """The plain state dict, without its ImageNet classifier, to a Hugging Face folder of the project's encoder."""
    import torch

    from vlsafe.models.encoders.efficientnet_lite0 import EfficientNetLite0Config, EfficientNetLite0Model

    weights = torch.load(raw / "model.pth", map_location="cpu", weights_only=True)
    model = EfficientNetLite0Model(EfficientNetLite0Config())
    model.load_state_dict({key: value for key, value in weights.items() if not key.startswith("_fc.")})
    model.save_pretrained(ready)
    _finish(raw, ready)


def _finish(raw: Path, ready: Path) -> None:
    """Add the licence, and let whoever may read it read the weights too: safetensors makes its files private."""
    shutil.copy(raw / "LICENSE", ready / "LICENSE")
    shutil.copymode(ready / "config.json", ready / "model.safetensors")
