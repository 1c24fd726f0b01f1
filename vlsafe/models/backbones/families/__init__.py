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

PADDING_FREE = frozenset(
    ("idefics3", "internvl", "llava", "llava_next", "llava_onevision", "minigpt_v2", "smolvlm"),
)
"""Model types whose samples do not see each other in one row, each shown by the families' tests. The others want a kind
or a direction of every token."""
