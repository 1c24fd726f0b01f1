"""Attention choice, and how a model is spread over devices: ``trainer.strategy`` by name."""

from __future__ import annotations

from vlsafe.table import Table

STRATEGIES = Table(
    "strategy",
    fsdp="vlsafe.strategies.fsdp2:FSDP2",
    fsdp2="vlsafe.strategies.fsdp2:FSDP2",
    hsdp="vlsafe.strategies.fsdp2:hsdp",
)
"""Names beyond Lightning's own (``ddp``, ``auto``, ...), each a strategy with its defaults."""
