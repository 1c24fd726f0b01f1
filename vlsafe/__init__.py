"""vlsafe: make vision large language models safe by fine-tuning, and measure what it cost.

Nothing heavy is imported here, so that ``python -m vlsafe --help`` answers at once; the public
names below are imported when they are first used (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Conversation": "vlsafe.conversation",
    "ImageRef": "vlsafe.conversation",
    "Turn": "vlsafe.conversation",
    "ConversationData": "vlsafe.data.datamodule",
    "Part": "vlsafe.data.mixture",
    "SafetyFineTuning": "vlsafe.models.module",
    "Backbone": "vlsafe.models.backbones.base",
    "ComposedVLLM": "vlsafe.models.backbones.composed",
    "PretrainedVLLM": "vlsafe.models.backbones.pretrained",
    "SwappedVLLM": "vlsafe.models.backbones.swapped",
    "MiniGPTv2": "vlsafe.models.minigpt.backbone",
    "Benchmark": "vlsafe.evaluation.benchmarks.base",
    "Judge": "vlsafe.evaluation.judges.base",
    "Objective": "vlsafe.objectives.base",
    "SFT": "vlsafe.objectives.sft",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'vlsafe' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
