"""Which kernel is chosen: by name, package, GPU, precision and model."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from fitting import FULL, module, trainer
from flash_kernels import GPU, flash_installed
from tiny import save_tokenizer
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    LlavaForConditionalGeneration,
    MllamaForConditionalGeneration,
    PretrainedConfig,
)

from vlsafe.errors import ConfigError
from vlsafe.models.components import Components
from vlsafe.strategies import attention
from vlsafe.strategies.attention import READ_BOTH_WAYS, Runtime, choose
from vlsafe.strategies.fsdp2 import FSDP2

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(three: bool, two: bool, capability: tuple[int, int] = (9, 0)) -> None:
        monkeypatch.setattr(transformers.utils, "is_flash_attn_3_available", lambda: three)
        monkeypatch.setattr(transformers.utils, "is_flash_attn_2_available", lambda: two)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)

    return install


@pytest.mark.parametrize(
    ("three", "two", "chosen"),
    [
        (True, True, "flash_attention_3"),
        (True, False, "flash_attention_3"),
        (False, True, "flash_attention_2"),
        (False, False, "sdpa"),
    ],
)
def test_auto_takes_the_fastest_that_can_run(backends: Any, three: bool, two: bool, chosen: str) -> None:
    backends(three, two)
    assert choose("auto", GPU) == chosen
    assert choose("auto", Runtime(CUDA, torch.float16)) == chosen


@pytest.mark.parametrize(
    ("runtime", "model", "reason"),
    [
        (Runtime(CUDA, torch.float32), "llava", "attention would get float32, and this kernel takes bfloat16"),
        (Runtime(CPU, torch.bfloat16), "llava", "it needs a CUDA GPU, and this run computes on 'cpu'"),
        (GPU, "paligemma", "paligemma reads pictures or prompts in both directions"),
        (GPU, "mllama", "transformers has no flash attention for MllamaForConditionalGeneration"),
    ],
)
def test_where_flash_cannot_run_auto_takes_sdpa_and_a_request_is_refused(
    backends: Any, runtime: Runtime, model: str, reason: str
) -> None:
    backends(True, True)
    kind = MllamaForConditionalGeneration if model == "mllama" else LlavaForConditionalGeneration
    assert choose("auto", runtime, (model,), (kind,)) == "sdpa"
    with pytest.raises(ConfigError, match=f"cannot run here: {reason}.*or use 'auto'"):
        choose("flash_attention_2", runtime, (model,), (kind,))


@pytest.mark.parametrize("name", ["flash_attention_2", "flash_attention_3"])
def test_flash_on_request_is_given_or_refused_never_replaced(backends: Any, name: str) -> None:
    backends(True, True)
    assert choose(name, GPU) == name
    backends(False, False)
    with pytest.raises(ConfigError, match=f"'{name}' cannot run here.*or use 'auto'"):
        choose(name, GPU)
    backends(True, True, capability=(7, 5))
    with pytest.raises(ConfigError, match=f"'{name}' cannot run here: it needs a CUDA GPU of the Ampere generation"):
        choose(name, GPU)


@pytest.mark.parametrize("name", ["sdpa", "eager"])
def test_the_plain_backends_always_run(backends: Any, name: str) -> None:
    backends(True, True)
    assert choose(name, GPU) == choose(name, Runtime(CPU, torch.float32)) == name


def test_an_unknown_backend_is_refused_with_the_list() -> None:
    with pytest.raises(ConfigError, match=r"unknown attention 'flash'.*auto, flash_attention_2"):
        choose("flash", GPU)


def test_models_that_read_both_ways_are_those_of_transformers() -> None:
    """Their code asks for a mask over pairs of tokens. A newer transformers may bring more."""

    def asks(config: type[PretrainedConfig]) -> bool:
        kinds = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[config]
        for kind in kinds if isinstance(kinds, tuple) else (kinds,):
            if not kind.__module__.startswith("transformers."):
                continue  # registered by us or by a test
            code = inspect.getsource(sys.modules[kind.__module__])
            if kind._supports_flash_attn and ("block_sequence_ids" in code or "or_mask_function" in code):
                return True
        return False

    assert {config.model_type for config in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING if asks(config)} == READ_BOTH_WAYS


@pytest.mark.parametrize(
    ("precision", "weights", "computes"),
    [
        ("32-true", "float32", torch.float32),
        ("32-true", "bfloat16", torch.bfloat16),
        ("bf16-mixed", "float32", torch.bfloat16),  # full fine-tuning: autocast's layers hand attention bfloat16
        ("bf16-mixed", "bfloat16", torch.bfloat16),
    ],
)
def test_a_run_computes_in_autocasts_precision_else_in_that_of_its_weights(
    tmp_path: Path, precision: str, weights: str, computes: torch.dtype
) -> None:
    tuned = module(save_tokenizer(tmp_path / "tokenizer"))
    tuned.backbone.dtype = weights  # type: ignore[assignment]
    assert tuned.runtime == Runtime.here(weights)
    tuned.trainer = trainer(tmp_path, precision=precision)
    assert tuned.runtime == Runtime(CPU, computes)


@pytest.mark.parametrize(("compute", "computes"), [("bfloat16", torch.bfloat16), ("float32", torch.float32)])
def test_a_sharded_run_computes_in_the_precision_of_its_products(
    tmp_path: Path, compute: Any, computes: torch.dtype
) -> None:
    tuned = module(save_tokenizer(tmp_path / "tokenizer"))
    tuned.trainer = trainer(tmp_path, strategy=FSDP2(compute=compute))
    assert tuned.runtime.dtype == computes


def test_a_run_that_asks_for_what_it_cannot_have_ends_before_weights_load(tmp_path: Path) -> None:
    tuned = module(save_tokenizer(tmp_path / "tokenizer"), Components(FULL, FULL, FULL))
    tuned.backbone.attention = "flash_attention_2"
    tuned.trainer = trainer(tmp_path, precision="bf16-mixed")
    with flash_installed(), pytest.raises(ConfigError, match="this run computes on 'cpu'"):
        tuned.setup("fit")
    assert tuned.model is None


def test_the_choice_is_told_with_what_stands_against_flash() -> None:
    kernels = attention.Kernels("sdpa", "flash_attention_2", "not flash_attention_2: why")
    assert str(kernels) == "language sdpa, vision flash_attention_2 (not flash_attention_2: why)"
    assert str(attention.Kernels("sdpa", None)) == "language sdpa"
