"""LLaVA-1.5-7B counted without weights, against arithmetic by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from shapes import llava_7b

from vlsafe import SafetyFineTuning
from vlsafe.models.backbones.pretrained import PretrainedVLLM
from vlsafe.models.components import Components, Tuning
from vlsafe.planning.flops import language_flops
from vlsafe.planning.shape import Shape, Sizes

WIDTH, INNER, LAYERS, WORDS = 4096, 11008, 32, 32064
LINEAR = LAYERS * (4 * WIDTH * WIDTH + 3 * WIDTH * INNER)
LANGUAGE = LINEAR + (2 * LAYERS + 1) * WIDTH + 2 * WORDS * WIDTH
PROJECTOR = 1024 * WIDTH + WIDTH + WIDTH * WIDTH + WIDTH
VISION_LAYER = 4 * (1024 * 1024 + 1024) + (1024 * 4096 + 4096) + (4096 * 1024 + 1024) + 4 * 1024
VISION = 3 * 14 * 14 * 1024 + 1024 + (24 * 24 + 1) * 1024 + 2 * 2 * 1024 + 24 * VISION_LAYER
ADAPTERS = LAYERS * 128 * (4 * (WIDTH + WIDTH) + 3 * (WIDTH + INNER))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llava_7b(tmp_path_factory.mktemp("llava"))


def shape_of(checkpoint: Path, dtype: str, precision: str, projector: Tuning, language: Tuning) -> Shape:
    backbone = PretrainedVLLM(str(checkpoint), template="vicuna_v1", dtype=dtype, attention="sdpa")
    return Shape(SafetyFineTuning(backbone, Components(Tuning(), projector, language)), precision)


def parameters(sizes: Sizes) -> dict[str, int]:
    return {row["component"]: row["parameters"] for row in sizes.rows}


def test_lora_in_bf16(checkpoint: Path) -> None:
    full, adapters = Tuning("full", 2e-5), Tuning("lora", 2e-4, rank=128, alpha=256)
    shape = shape_of(checkpoint, "bfloat16", "bf16-mixed", full, adapters)
    sizes = shape.sizes
    assert parameters(sizes) == {"vision": VISION, "projector": PROJECTOR, "language": LANGUAGE}
    assert (VISION, PROJECTOR, LANGUAGE) == (303_507_456, 20_979_712, 6_738_939_904)
    assert sizes.trainable == PROJECTOR + ADAPTERS == 340_795_392
    assert sizes.trainable_weights == sizes.gradients == 4 * sizes.trainable
    assert sizes.adamw == 8 * sizes.trainable
    kept_twice = PROJECTOR  # PEFT keeps the original of a module that it saves whole
    buffers = sizes.weights - 2 * (VISION + LANGUAGE + kept_twice) - 4 * sizes.trainable
    assert 0 <= buffers < 10_000
    flops = language_flops(shape.tuned, shape.plan, shape.tuned.get_output_embeddings())
    assert flops.body == 4 * LINEAR + 6 * ADAPTERS
    assert flops.head == 4 * WORDS * WIDTH


def test_full_in_fp32(checkpoint: Path) -> None:
    tuning = Tuning("full", 1e-5)
    sizes = shape_of(checkpoint, "float32", "bf16-mixed", tuning, tuning).sizes
    assert sizes.trainable == PROJECTOR + LANGUAGE
    states = sizes.trainable_weights + sizes.gradients + sizes.adamw
    assert states == 16 * (PROJECTOR + LANGUAGE)
    assert round(states / 1e9) == 108
    layer = LINEAR // LAYERS + 2 * WIDTH
    assert sizes.block == 2 * layer  # gathered in bf16
    assert sizes.block_gradients == 4 * layer
    assert sizes.root == 2 * (sizes.parameters - LAYERS * layer - 24 * VISION_LAYER)


def test_weights_in_four_bits(checkpoint: Path) -> None:
    frozen, adapters = Tuning(), Tuning("qlora", 2e-4, rank=16)
    sizes = shape_of(checkpoint, "bfloat16", "bf16-mixed", frozen, adapters).sizes
    adapted = LAYERS * 16 * (4 * (WIDTH + WIDTH) + 3 * (WIDTH + INNER))
    others = VISION + PROJECTOR + LANGUAGE - LINEAR
    expected = LINEAR * (1 / 2 + 1 / 64 + 1 / 4096) + 2 * others + 4 * adapted
    assert sizes.weights == pytest.approx(expected, rel=1e-5)
