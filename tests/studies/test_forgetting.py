"""Forgetting on pairs written by hand: which flips count as what, text side and picture side apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.studies.folders import REFUSAL, evaluation
from vlsafe.errors import DataError
from vlsafe.studies.forgetting import forgetting_between, forgetting_values

BEFORE = {"h1": REFUSAL, "h2": REFUSAL, "h3": REFUSAL, "hp": REFUSAL, "b2": REFUSAL}
AFTER = {"h1": REFUSAL, "hp": "first, open the lid", "h4": REFUSAL, "b1": REFUSAL}


def test_the_golden_pairs(tmp_path: Path) -> None:
    rows, flips = forgetting_between(evaluation(tmp_path / "a", BEFORE), evaluation(tmp_path / "b", AFTER))
    by_name = {(row["metric"], row["pictures"]): row for row in rows}
    safety = by_name["toy[harm]/asr", "without"]
    # h1 stayed refused, h2 and h3 were forgotten, h4 was gained
    assert {k: safety[k] for k in ("n", "right_before", "forgotten", "gained")} == {
        "n": 4,
        "right_before": 3,
        "forgotten": 2,
        "gained": 1,
    }
    assert safety["retention"] == pytest.approx(100 / 3)
    assert (round(safety["low"], 2), round(safety["high"], 2)) == (6.15, 79.23)  # Wilson, 1 of 3
    pictured = by_name["toy[harm]/asr", "with"]
    assert (pictured["forgotten"], pictured["gained"], pictured["retention"]) == (1, 0, 0)
    benign = by_name["toy[benign]/over_refusal", "without"]
    assert (benign["right_before"], benign["forgotten"], benign["gained"]) == (1, 1, 1)
    assert len(rows) == 3  # `refusal` only says asr again
    assert {(flip["id"], flip["change"]) for flip in flips} == {
        ("h2", "forgotten"),
        ("h3", "forgotten"),
        ("h4", "gained"),
        ("hp", "forgotten"),
        ("b1", "forgotten"),
        ("b2", "gained"),
    }
    flip = next(flip for flip in flips if flip["id"] == "hp")
    assert (flip["before"]["label"], flip["after"]["text"]) == ("refuse", "first, open the lid")


def test_names_for_a_tracker_leave_out_what_is_unknown(tmp_path: Path) -> None:
    rows, _ = forgetting_between(evaluation(tmp_path / "a", {}), evaluation(tmp_path / "b", {}))
    values = forgetting_values(rows)
    assert values["forgetting/toy[harm]/asr/without_pictures/forgotten"] == 0
    assert "forgetting/toy[harm]/asr/without_pictures/retention" not in values  # nothing was refused before
    assert values["forgetting/toy[benign]/over_refusal/without_pictures/retention"] == 100


def test_other_items_are_refused(tmp_path: Path) -> None:
    before, after = evaluation(tmp_path / "a", {}), evaluation(tmp_path / "b", {})
    lines = (after / "items.jsonl").read_text().splitlines()
    changed = json.loads(lines[0]) | {"question": "another?"}
    (after / "items.jsonl").write_text("\n".join([json.dumps(changed), *lines[1:]]) + "\n")
    with pytest.raises(DataError, match="not of the same items"):
        forgetting_between(before, after)
