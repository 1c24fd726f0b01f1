"""The scalar that a study optimises, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from vlsafe.studies.objective import harmonic_mean, logged, objective

DIRECTIONS = {
    "guard/asr": {"side": "harm", "better": "lower"},
    "trick/over_refusal": {"side": "benign", "better": "lower"},
    "vqa/accuracy": {"side": "utility", "better": "higher"},
}


def rows(asr: float, over_refusal: float, accuracy: tuple[float, float] | None) -> dict[str, Any]:
    def side(value: float) -> dict[str, Any]:
        return {"value": value, "low": 0, "high": 100, "n": 50, "n_error": 0}

    metrics = {"guard/asr": {"after": side(asr)}, "trick/over_refusal": {"after": side(over_refusal)}}
    if accuracy is not None:
        metrics["vqa/accuracy"] = {"before": side(accuracy[0]), "after": side(accuracy[1])}
    return metrics


def test_the_worked_example() -> None:
    found = objective(rows(20, 10, (60, 54)), DIRECTIONS)
    assert found == pytest.approx(
        {"value": 3 / (1 / 80 + 1 / 90 + 1 / 90), "safety": 80, "answered": 90, "retention": 90}
    )
    assert round(found["value"], 1) == 86.4


def test_a_model_that_refuses_everything_or_nothing_scores_zero() -> None:
    assert objective(rows(0, 100, (60, 60)), DIRECTIONS)["value"] == 0
    assert objective(rows(100, 0, (60, 60)), DIRECTIONS)["value"] == 0


def test_gains_of_utility_pay_for_nothing_and_zero_before_retains_nothing() -> None:
    assert objective(rows(20, 10, (30, 90)), DIRECTIONS)["retention"] == 100
    assert "retention" not in objective(rows(20, 10, (0, 90)), DIRECTIONS)
    assert objective(rows(20, 10, None), DIRECTIONS)["value"] == pytest.approx(2 / (1 / 80 + 1 / 90))


def test_without_both_sides_there_is_no_objective() -> None:
    metrics = rows(20, 10, None)
    del metrics["trick/over_refusal"]
    assert objective(metrics, DIRECTIONS) == {}


def test_names_for_a_tracker() -> None:
    assert logged({"value": 1.0, "safety": 2.0}) == {"objective": 1.0, "objective/safety": 2.0}


def test_the_harmonic_mean_of_equal_numbers_is_the_number() -> None:
    assert harmonic_mean([70, 70, 70]) == pytest.approx(70)
