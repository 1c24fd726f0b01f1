"""A laptop-sized safety set in VLGuard's schema whose pictures are drawn by code."""

from __future__ import annotations

from vlsafe.data.drawn.build import build

__all__ = ["build"]
