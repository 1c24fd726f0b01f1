"""The GPU benchmark runs, on a tiny model and a CPU: a combination gives a row with figures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import gpu
import pytest
import torch

TINY = ["--tiny", "--device", "cpu", "--steps", "1"]


@pytest.fixture(autouse=True)
def _same_random_numbers_afterwards() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.mark.slow
def test_a_combination_is_measured(tmp_path: Path) -> None:
    bench = gpu.Bench(torch.device("cpu"), tiny=True, steps=1, folder=tmp_path, ceiling=1e15)
    found = gpu.measured(bench, gpu.Cell("lora", 2, "sdpa", padding_free=True, checkpointing=True))
    assert found["samples_per_s"] > 0 and found["tokens_per_s"] > 20 * found["samples_per_s"]
    assert 0 < found["mfu"] < 1 and 0 < found["planned_gib"] < 1 and found["peak_gib"] is None
    assert "padding-free recomputed" in gpu.row(found) and "peak not measured" in gpu.row(found)


def test_one_that_does_not_fit_is_a_row_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_room(*_: object) -> float:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(gpu, "_trained", no_room)
    bench = gpu.Bench(torch.device("cpu"), tiny=True, steps=1, folder=tmp_path, ceiling=1e15)
    found = gpu.measured(bench, gpu.Cell("full", 1, "sdpa", padding_free=False, checkpointing=False))
    assert found["out_of_memory"] and gpu.row(found).endswith("out of memory")


@pytest.mark.slow
def test_every_combination_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = gpu.main([*TINY, "--rows", "2", "--out", str(tmp_path / "gpu.json")])
    assert len(found) == 8 and {row["attention"] for row in found} == {"sdpa"}
    assert all(row["samples_per_s"] > 0 for row in found)
    assert capsys.readouterr().out.count("MFU") == 8
    assert json.loads((tmp_path / "gpu.json").read_text())["rows"] == found
