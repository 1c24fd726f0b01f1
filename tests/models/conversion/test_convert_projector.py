"""LLaVA's ``mm_projector.bin``: converted, and taken by every backbone that has such a projector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from originals import inputs_for, logits, original_llava, write_llava
from tiny import VISION, composed, language_model, save_tokenizer, seeded_model
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from vlsafe import ComposedVLLM, PretrainedVLLM, SwappedVLLM
from vlsafe.__main__ import main
from vlsafe.conversation import ImageRef
from vlsafe.errors import ConfigError, DataError, VlsafeError
from vlsafe.models.conversion.llava import convert_llava

NAMES = {"0": "linear_1", "2": "linear_2"}


@pytest.fixture
def published(tmp_path: Path) -> dict[str, Tensor]:
    """``mm_projector.bin`` for widths 16 and 16, as LLaVA's pretrain.sh leaves it."""
    torch.manual_seed(7)
    weights = {f"model.mm_projector.{n}.{part}": torch.randn(16, 16) if part == "weight" else torch.randn(16)
               for n in NAMES for part in ("weight", "bias")}  # fmt: skip
    torch.save(weights, tmp_path / "mm_projector.bin")
    return weights


@pytest.fixture
def converted(published: dict[str, Tensor], tmp_path: Path) -> Path:
    assert main(["convert", str(tmp_path / "mm_projector.bin"), "--out", str(tmp_path / "projector")]) == 0
    return tmp_path / "projector"


def by_hand(weights: dict[str, Tensor], features: Tensor) -> Tensor:
    """What LLaVA's Sequential(Linear, GELU, Linear) makes of ``features``."""
    first, second = ((weights[f"model.mm_projector.{n}.weight"], weights[f"model.mm_projector.{n}.bias"]) for n in "02")
    return nn.functional.gelu(features @ first[0].T + first[1]) @ second[0].T + second[1]


def projected(model: Any) -> Tensor:
    torch.manual_seed(0)
    with torch.inference_mode():
        features: Tensor = model.model.multi_modal_projector(torch.randn(3, 16))
    return features


def expected(weights: dict[str, Tensor]) -> Tensor:
    torch.manual_seed(0)
    return by_hand(weights, torch.randn(3, 16))


def test_a_composed_model_starts_from_it(published: dict[str, Tensor], converted: Path, tmp_path: Path) -> None:
    tokenizer = save_tokenizer(tmp_path / "tokenizer")
    for named in (converted, converted / "projector.safetensors"):
        model = seeded_model(composed(tokenizer, projector_weights=str(named)))
        assert torch.allclose(projected(model), expected(published), atol=1e-5)


def test_a_pretrained_and_a_swapped_model_take_it_in_place_of_their_own(
    llava: LlavaForConditionalGeneration,
    clip: Path,
    published: dict[str, Tensor],
    converted: Path,
    picture: ImageRef,
    tmp_path: Path,
) -> None:
    other = original_llava(llava) | published
    whole = write_llava(tmp_path / "original", original_llava(llava))
    convert_llava(whole, tmp_path / "base", vision_tower=clip)
    convert_llava(write_llava(tmp_path / "other", other), tmp_path / "with", vision_tower=clip)
    given = PretrainedVLLM(str(tmp_path / "base"), projector_weights=str(converted), dtype="float32", attention="sdpa")
    wanted = PretrainedVLLM(str(tmp_path / "with"), dtype="float32", attention="sdpa").load_model()
    inputs = inputs_for(tmp_path / "with", picture)
    assert torch.equal(logits(given.load_model(), inputs), logits(wanted, inputs))
    swapped = SwappedVLLM(
        str(tmp_path / "base"), "clip", VISION["clip"], projector_weights=str(converted), dtype="float32"
    )
    assert torch.allclose(projected(swapped.load_model()), expected(published), atol=1e-5)


def test_the_linear_kind_is_one_linear_layer(tmp_path: Path) -> None:
    weights = {"model.mm_projector.weight": torch.randn(16, 16), "model.mm_projector.bias": torch.randn(16)}
    torch.save(weights, tmp_path / "linear.bin")
    assert main(["convert", str(tmp_path / "linear.bin"), "--out", str(tmp_path / "linear")]) == 0
    tokenizer = save_tokenizer(tmp_path / "tokenizer")
    model = seeded_model(composed(tokenizer, projector="linear", projector_weights=str(tmp_path / "linear")))
    torch.manual_seed(0)
    by_one = nn.functional.linear(torch.randn(3, 16), *weights.values())
    assert torch.allclose(projected(model), by_one, atol=1e-5)
    with pytest.raises(DataError, match=r"of kind linear, the backbone's is mlp2x_gelu; set projector: linear"):
        composed(tokenizer, projector_weights=str(tmp_path / "linear")).load_model()


def test_wrong_keys_and_shapes_are_named(converted: Path, tmp_path: Path) -> None:
    tokenizer = save_tokenizer(tmp_path / "tokenizer")
    wide = ComposedVLLM(
        "clip", language_model(tokenizer, hidden_size=32), VISION["clip"], projector_weights=str(converted)
    )
    with pytest.raises(DataError) as caught:
        wide.load_model()
    assert f"{converted / 'projector.safetensors'}: model.multi_modal_projector.linear_1.weight is [16, 16], this " in (
        str(caught.value)
    )
    assert "model's is [32, 16]" in str(caught.value) and len(caught.value.problems) == 4
    torch.save({"model.mm_projector.0.weight": torch.zeros(2, 2), "model.mm_projector.4.bias": torch.zeros(2)},
               tmp_path / "odd.bin")  # fmt: skip
    assert main(["convert", str(tmp_path / "odd.bin"), "--out", str(tmp_path / "odd")]) == 1
    from vlsafe.models.conversion.projector import convert_projector

    with pytest.raises(DataError) as caught:
        convert_projector(tmp_path / "odd.bin", tmp_path / "odd")
    assert "'model.mm_projector.4.bias' is no layer of LLaVA's" in str(caught.value)
    assert "nothing gives linear_1.bias" in str(caught.value) and not (tmp_path / "odd").exists()


def test_what_is_wrong_is_told_before_weights_load(converted: Path, tmp_path: Path) -> None:
    tokenizer = save_tokenizer(tmp_path / "tokenizer")
    with pytest.raises(ConfigError, match=r"mm_projector.bin is of LLaVA's own layout; `python -m vlsafe convert"):
        assert composed(tokenizer, projector_weights=str(tmp_path / "mm_projector.bin")).processor
    with pytest.raises(ConfigError, match="no such file; name what `vlsafe convert` or an export wrote"):
        assert composed(tokenizer, projector_weights=str(tmp_path / "nowhere")).processor
    with pytest.raises(ConfigError, match="keep_projector takes the checkpoint's projector, projector_weights another"):
        SwappedVLLM("x", "clip", keep_projector=True, projector_weights=str(converted))


class Code:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("run",)


def test_a_file_that_would_run_code_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model.mm_projector.0.weight": Code()}, tmp_path / "evil.bin")
    from vlsafe.convert import main as convert

    with pytest.raises(VlsafeError, match="holds more than tensors, which could run code"):
        convert([str(tmp_path / "evil.bin"), "--out", str(tmp_path / "out")])
    assert "run" not in capsys.readouterr().out and not (tmp_path / "out").exists()
