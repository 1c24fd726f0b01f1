"""Dropout before adapters is planned as a GPU keeps it: a byte an element, where a CPU keeps as many as the input."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import VISION, language_model, save_tokenizer

from vlsafe import ComposedVLLM, SafetyFineTuning
from vlsafe.models.components import Components, Tuning
from vlsafe.planning import shape as planning
from vlsafe.planning.shape import Shape
from vlsafe.planning.workload import Workload

WIDTH, INNER, LAYERS, ROWS, LENGTH = 16, 32, 2, 3, 50


def test_the_mask_takes_a_byte_an_element(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = language_model(save_tokenizer(tmp_path / "tokenizer"))
    backbone = ComposedVLLM("clip", words, vision_weights=VISION["clip"], attention="sdpa", dtype="bfloat16")
    components = Components(Tuning(), Tuning(), Tuning("lora", 1e-3, rank=2, dropout=0.1))
    workload = Workload(ROWS, [LENGTH], [5], [False], {}, ROWS, False, "as given")

    def activations(checkpointing: bool) -> int:
        shape = Shape(SafetyFineTuning(backbone, components), "bf16-mixed")
        return shape.traced(workload, workload.heaviest(), checkpointing).activations

    planned, recomputed = activations(False), activations(True)
    assert recomputed < planned / 4
    monkeypatch.setattr(planning, "_drop_as_on_a_gpu", lambda model: None)
    read = LAYERS * (6 * WIDTH + INNER) - 3 * WIDTH  # embeddings are frozen: of what q, k, v read first nothing is kept
    assert activations(False) - planned == ROWS * LENGTH * read  # 2 bytes each in bfloat16, and not 1
    assert activations(True) == recomputed


def test_a_dropout_of_nothing_keeps_nothing() -> None:
    read = torch.ones(3, requires_grad=True)
    assert planning.GPUDropout(0.0)(read) is read
    assert planning.GPUDropout(0.5).eval()(read) is read
