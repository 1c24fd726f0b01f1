"""``${rest:OF,SHARE,...}`` in YAML: what some shares leave to another part, so that one flag changes a mixture."""

from __future__ import annotations

from decimal import Decimal

from omegaconf import OmegaConf


def rest(of: float, *shares: float) -> float:
    """``of`` times what ``shares`` leave of 1, in decimals, so that shares as people write them still sum to 1.

    Worked example: ``${rest:0.3,${..safety.share}}`` with a safety share of 0.1 is 0.3 x 0.9 = 0.27.
    """
    left = 1 - sum((Decimal(str(share)) for share in shares), Decimal(0))
    return float(Decimal(str(of)) * left)


def register() -> None:
    """Make the interpolations of this module known to every config that is read from now on."""
    OmegaConf.register_resolver("rest", rest, replace=True)
