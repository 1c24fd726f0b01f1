"""Models on the Hugging Face hub: the paper's, their parts, and judges.

``revision`` is ``main`` where no commit could be confirmed; the manifest of a fetched model records the commit.
"""

from __future__ import annotations

from vlsafe.fetch.asset import Asset

_LLAMA = "Llama 2 Community License"
_META_FORM = "Accept Meta's licence on its page (answered within hours)."


def _model(name: str, where: str, licence: str, note: str, gated: str = "", revision: str = "main") -> Asset:
    return Asset(name=name, kind="hub-model", where=where, licence=licence, note=note, gated=gated, revision=revision)


_VLLMS = (
    _model("llava-1.5-7b", "llava-hf/llava-1.5-7b-hf", _LLAMA, "the paper's VLLM, transformers format; 14 GB"),
    _model("llava-1.5-13b", "llava-hf/llava-1.5-13b-hf", _LLAMA, "the paper's larger VLLM; 27 GB"),
    _model("smolvlm-256m", "HuggingFaceTB/SmolVLM-256M-Instruct", "Apache-2.0", "a small VLLM with its own design"),
)

# The paper's own results, in the original LLaVA format: `python -m vlsafe convert` makes them transformers folders.
_RELEASED = tuple(
    _model(
        f"vlguard-llava-{size}-{method.lower()}",
        f"ys-zong/llava-v1.5-{size}-{method}",
        _LLAMA,
        f"the paper's released {method} checkpoint, original LLaVA format, pickled weights",
    )
    for size in ("7b", "13b")
    for method in ("Mixed", "Mixed-lora", "Posthoc", "Posthoc-lora", "Clean", "Clean-lora")
)

_LANGUAGE = (
    _model("vicuna-7b-v1.5", "lmsys/vicuna-7b-v1.5", _LLAMA, "LLaVA-1.5's language model; pickled weights, 13 GB"),
    _model("vicuna-13b-v1.5", "lmsys/vicuna-13b-v1.5", _LLAMA, "LLaVA-1.5-13B's language model; 26 GB"),
    _model("llama-2-7b-chat", "meta-llama/Llama-2-7b-chat-hf", _LLAMA, "MiniGPT-v2's language model", _META_FORM),
    _model("smollm2-1.7b-instruct", "HuggingFaceTB/SmolLM2-1.7B-Instruct", "Apache-2.0", "a small language model"),
)

_ENCODERS = (
    _model("clip-vit-l-14-336", "openai/clip-vit-large-patch14-336", "MIT (code); weights unstated", "LLaVA-1.5's eye"),
    _model("siglip-so400m-384", "google/siglip-so400m-patch14-384", "Apache-2.0", "vision encoder, 729 patches"),
    _model("dinov2-large", "facebook/dinov2-large", "Apache-2.0", "self-supervised vision encoder"),
)

_JUDGES = (
    _model("llama-guard-3-8b", "meta-llama/Llama-Guard-3-8B", "Llama 3.1 Community License", "judge", _META_FORM),
    _model(
        "wildguard",
        "allenai/wildguard",
        "Apache-2.0",
        "judge of prompts, answers and refusals",
        "Accept AI2's responsible-use terms on its page.",
    ),
    _model("harmbench-cls", "cais/HarmBench-Llama-2-13b-cls", "MIT", "HarmBench's yes/no classifier; 26 GB"),
)

ASSETS = (*_VLLMS, *_RELEASED, *_LANGUAGE, *_ENCODERS, *_JUDGES)
