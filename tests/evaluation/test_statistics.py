"""Golden values of the intervals and tests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlsafe.evaluation.statistics import holm, mcnemar, non_inferiority, paired_difference, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high", "digits"),
    [
        (1, 442, 0.04, 1.27, 2),
        (4, 442, 0.35, 2.30, 2),
        (321, 442, 68.3, 76.6, 1),
        (5, 558, 0.38, 2.08, 2),
        (105, 558, 15.8, 22.3, 1),
        (228, 250, 87.0, 94.1, 1),
        (53, 200, 20.9, 33.0, 1),
        (0, 500, 0.0, 0.76, 2),
        (452, 500, 87.5, 92.7, 1),
    ],
)
def test_wilson_of_the_paper_s_cells(successes: int, n: int, low: float, high: float, digits: int) -> None:
    found = wilson(successes, n)
    assert [round(100 * bound, digits) for bound in found] == [low, high]


def test_wilson_at_the_ends_and_without_data() -> None:
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="3 successes of 2"):
        wilson(3, 2)


def test_mcnemar_of_four_against_one_of_442_is_noise() -> None:
    assert mcnemar(only_before=3, only_after=0) == 0.25  # nested: the one is among the four
    assert mcnemar(only_before=4, only_after=1) == 0.375  # disjoint
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 60) == pytest.approx(2 * 0.5**60)


def test_mcnemar_of_a_large_set_does_not_overflow() -> None:
    assert 0 < mcnemar(4_000, 5_000) < 1e-20


def test_newcombe_s_own_example() -> None:
    # Newcombe 1998, the first of the paired examples: cells 36, 12, 2, 0.
    value, low, high = paired_difference(both=36, only_before=2, only_after=12, neither=0)
    assert (round(value, 4), round(low, 4), round(high, 4)) == (0.2, 0.0569, 0.3404)


cells = st.integers(0, 60)


@given(cells, cells, cells, cells)
def test_paired_difference_holds_its_value_and_mirrors(a: int, b: int, c: int, d: int) -> None:
    value, low, high = paired_difference(a, b, c, d)
    mirrored = paired_difference(a, c, b, d)
    assert -1 - 1e-9 <= low <= value <= high <= 1 + 1e-9
    assert mirrored == pytest.approx((-value, -high, -low), abs=1e-9)


def test_holm_adjusts_and_keeps_order() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


def test_utility_is_kept_only_when_its_whole_interval_is_within_the_margin() -> None:
    assert non_inferiority(-0.9, 3.0, "higher", margin=1) == "kept"
    assert non_inferiority(-1.0, 3.0, "higher", margin=1) == "open"  # the margin itself is a loss
    assert non_inferiority(-9.0, -1.1, "higher", margin=1) == "lost"
    assert non_inferiority(-3.0, 0.9, "lower", margin=1) == "kept"
    assert non_inferiority(1.1, 9.0, "lower", margin=1) == "lost"
    assert non_inferiority(-9.0, 9.0, "lower", margin=1) == "open"
