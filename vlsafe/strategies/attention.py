"""Which attention kernel a model runs with: the one place that knows about optional flash-attn packages."""

from __future__ import annotations

import logging
from typing import Literal, get_args

from vlsafe.errors import ConfigError

Attention = Literal["auto", "flash_attention_2", "flash_attention_3", "sdpa", "eager"]

_INSTALL = {
    "flash_attention_2": "install it after torch with: pip install --no-build-isolation 'vlsafe[flash]'",
    "flash_attention_3": "build flash-attn 3 from the `hopper` folder of the flash-attention sources",
}

logger = logging.getLogger(__name__)


def available() -> dict[str, bool]:
    """Each backend -> whether it can run here (package importable and, for flash, CUDA present)."""
    from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

    return {
        "flash_attention_3": is_flash_attn_3_available(),
        "flash_attention_2": is_flash_attn_2_available(),
        "sdpa": True,
        "eager": True,
    }


def choose(requested: str = "auto") -> str:
    """The backend's name as transformers' ``attn_implementation`` takes it.

    ``auto`` is the fastest one that can run here and says which it took. Raises ConfigError for an unknown
    name, and for an explicit request that cannot be met: silently running something else would make the
    run's record untrue.
    """
    if requested not in get_args(Attention):
        raise ConfigError(f"unknown attention {requested!r}. Valid names: {', '.join(get_args(Attention))}")
    usable = available()
    if requested == "auto":
        chosen = next(name for name, can_run in usable.items() if can_run)
        logger.info("attention: auto chose %s", chosen)
        return chosen
    if not usable[requested]:
        raise ConfigError(
            f"attention {requested!r} cannot run here: it needs a CUDA GPU and its package; "
            f"{_INSTALL[requested]}, or use 'auto', which takes what is there"
        )
    return requested
