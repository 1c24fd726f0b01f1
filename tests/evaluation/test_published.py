"""The paper's cells: every table reads, and the intervals are those that its item counts allow."""

from __future__ import annotations

import pytest

from vlsafe.errors import ConfigError
from vlsafe.evaluation import published
from vlsafe.evaluation.benchmarks import BENCHMARKS


def test_cells_are_told_as_our_metrics_count_with_the_intervals_of_their_items() -> None:
    cells = published.published("llava-7b")
    unsafe = cells["vlguard[unsafe]/asr"]
    assert (unsafe.value, unsafe.n, unsafe.table, unsafe.doubt) == (72.62, 442, "Table 2", "")
    assert (round(unsafe.low or 0, 1), round(unsafe.high or 0, 1)) == (68.3, 76.6)
    refused = cells["xstest[safe]/over_refusal"]  # printed as 91.20 answered
    assert (refused.value, round(refused.low or 0, 1), round(refused.high or 0, 1)) == (8.8, 5.9, 13.0)
    assert cells["advbench[suffix=start_with,image=none]/asr"] == cells["advbench[suffix=answer_with,image=none]/asr"]
    assert cells["vizwiz[val,normalise=textvqa]/accuracy"].n is None


def test_a_llama_guard_is_compared_with_the_paper_s() -> None:
    ours = published.published("llava-7b", "guard:llama-guard-3:meta-llama/Llama-Guard-3-8B")
    assert (ours["xstest[unsafe]/asr"].value, ours["xstest[unsafe]/asr"].table) == (11.0, "Table 14")
    assert "vlguard[unsafe]/asr" not in ours
    assert ours["scienceqa[test,image]/accuracy"].value == 67.68  # no judge


def test_every_cell_reads_and_impossible_ones_say_so() -> None:
    found = [
        (row, name, cell)
        for row in published.rows()
        for judge in ("keyword:vlguard", "guard:llama-guard-3:x")
        for name, cell in published.published(row, judge).items()
    ]
    assert {cell.table for *_, cell in found} >= {"Table 1", "Table 2", "Table 3", "Table 4", "Table 12", "Table 14"}
    for row, name, cell in found:
        assert name.partition("[")[0].partition("/")[0] in BENCHMARKS, name
        low, high = cell.low, cell.high
        assert low is None or high is None or low - 0.3 <= cell.value <= high + 0.3, (row, name)
    doubtful = {(row, name) for row, name, cell in found if cell.doubt}
    assert doubtful == {
        ("llava-13b/mixed-lora", "xstest[unsafe]/asr"),
        ("llava-7b/clean", "xstest[safe]/over_refusal"),
        ("llava-13b", "figstep/asr"),
        ("minigpt-v2/post-hoc", "vlguard[unsafe]/asr"),
        ("llava-7b/mixed-lora", "advbench[image=none]/asr"),
    }


def test_an_unknown_row_lists_the_rows() -> None:
    with pytest.raises(ConfigError, match=r"no 'gpt-9'.*llava-7b/post-hoc"):
        published.published("gpt-9")
