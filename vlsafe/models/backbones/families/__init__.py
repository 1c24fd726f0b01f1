"""Families of transformers that need more than their config and processor, by their exact ``model_type``.

Every other model type is a plain :class:`vlsafe.models.backbones.families.base.Family`, which adds nothing.
"""

from __future__ import annotations

from vlsafe.table import Table

_HERE = "vlsafe.models.backbones.families"
FAMILIES = Table(
    "model family",
    mllama=f"{_HERE}.mllama:Mllama",
    paligemma=f"{_HERE}.paligemma:PaliGemma",
    smolvlm=f"{_HERE}.smolvlm:SmolVLM",
)
