"""Warm-up and decay of the learning rate, and which weights decay."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from fitting import FROZEN, FULL, LORA, module

from vlsafe.errors import ConfigError
from vlsafe.models.components import Components
from vlsafe.models.schedule import Schedule
from vlsafe.models.summary import parameter_groups


def test_warm_up_from_a_rate_and_an_end_above_zero() -> None:
    """Peak 1: 0.2 in the first step, a straight line to 1 after 4, half way between 1 and 0.5 at 9, 0.5 at 14."""
    schedule = Schedule("cosine", warmup=4, warmup_start=0.2, floor=0.5)
    rates = [schedule.rate(1.0, step, 14) for step in (0, 1, 2, 4, 9, 14, 20)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 1.0, 0.75, 0.5, 0.5])


def test_a_half_wave_from_the_first_step_goes_on_where_warm_up_ends() -> None:
    schedule = Schedule("cosine_from_start", warmup=5, warmup_start=0.0)
    assert [schedule.rate(2.0, step, 10) for step in (4, 5, 10)] == pytest.approx([1.6, 1.0, 0.0])


def test_odd_rates_are_refused_before_weights_load(tokenizer: Path) -> None:
    wrong = dict(warmup_steps=-1, warmup_start=1.0, min_learning_rate=-0.1)
    with pytest.raises(ConfigError) as caught:
        module(tokenizer, Components(FROZEN, FROZEN, replace(LORA, learning_rate=0.01)), **wrong)
    assert [problem for problem in caught.value.problems] == [
        "model.warmup_steps is -1, must be at least 0",
        "model.warmup_start is 1, more than the 0.01 of model.components.language",
        "model.min_learning_rate is -0.1, must not be negative",
    ]


def test_a_warm_up_longer_than_the_run_is_told(tokenizer: Path, caplog: pytest.LogCaptureFixture) -> None:
    tuned = module(tokenizer, warmup_steps=1000)
    with caplog.at_level(logging.WARNING):
        assert tuned.rates(55).warmup == 1000
    assert "warm-up takes 1000 steps, the run has 55" in caplog.text


def test_biases_and_norms_do_not_decay(tokenizer: Path) -> None:
    tuned = module(tokenizer, Components(FROZEN, FULL, FULL), weight_decay=0.05)
    tuned.configure_model()
    assert tuned.model is not None and tuned.plan is not None
    groups = {g["name"]: g for g in parameter_groups(tuned.model, tuned.plan, tuned.components, 0.05)}
    assert {name: group["weight_decay"] for name, group in groups.items()} == {
        "projector": 0.05, "projector without decay": 0.0, "language": 0.05, "language without decay": 0.0,
    }  # fmt: skip
    assert {p.ndim for p in groups["projector without decay"]["params"]} == {1}
    assert {p.ndim for p in groups["projector"]["params"]} == {2}
    plain = parameter_groups(tuned.model, tuned.plan, tuned.components, 0.0)
    assert {group["name"] for group in plain} == {"language", "projector"}
