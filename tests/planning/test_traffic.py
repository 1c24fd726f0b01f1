"""What GPUs send each other: by hand for round numbers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vlsafe.planning.memory import Machine, Strategy
from vlsafe.planning.traffic import traffic

SIZES: Any = SimpleNamespace(whole=1000, root=200, gradients=400)
"""Weights of 800 bytes in blocks and 200 in none, as gathered; float32 gradients of 100 weights that train."""


@pytest.mark.parametrize(
    ("strategy", "gpus", "accumulate", "within", "between"),
    [
        ("single", 1, 4, 0, 0),
        ("ddp", 2, 4, 2 * 400 // 2, 0),  # once a step, whatever is accumulated: 2 B (n - 1) / n
        ("ddp", 16, 1, 0, 2 * 400 * 15 // 16),
        ("fsdp2", 2, 1, (2 * 800 + 200 + 400) // 2, 0),  # blocks forward and backward, the rest once, gradients
        ("fsdp2", 2, 3, 3 * (2 * 800 + 200 + 400) // 2, 0),
        ("hsdp", 16, 1, 2200 * 7 // 8, 2 * 400 // 8 // 2),  # an eighth of the gradients between two nodes
        ("hsdp", 16, 3, 3 * 2200 * 7 // 8, 2 * 400 // 8 // 2),
    ],
)
def test_bytes_of_a_step(strategy: Strategy, gpus: int, accumulate: int, within: int, between: int) -> None:
    sent = traffic(strategy, SIZES, Machine(gpus, 8, 1, 1, 1), accumulate)
    assert (sent.within, sent.between) == (within, between)


def test_seconds_are_those_of_the_links() -> None:
    sent = traffic("hsdp", SIZES, Machine(16, 8, 1, 1, 1), 1)
    machine = Machine(16, 8, 1, 1, 1, link=1e-9, network=50e-9)  # 1 and 50 bytes a second
    assert sent.seconds(machine) == pytest.approx(1925 + 50 / 50)
