"""The loss of the supervised tokens: the fast path equals the reference, and both equal transformers' own loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import ask, composed, draw, language_model, save_tokenizer, seeded_model, talk
from torch import Tensor

from vlsafe.conversation import assistant, user
from vlsafe.data.collate import Batch, Collate
from vlsafe.data.encoding import Encoded, Encoding
from vlsafe.models.backbones.composed import ComposedVLLM
from vlsafe.objectives.sft import SFT


@pytest.fixture(params=[False, True], ids=["head", "tied"])
def backbone(request: pytest.FixtureRequest, tmp_path: Path) -> ComposedVLLM:
    tokenizer = save_tokenizer(tmp_path / "tokenizer")
    return composed(tokenizer, language=language_model(tokenizer, tie_word_embeddings=request.param))


@pytest.fixture
def encoded(backbone: ComposedVLLM, tmp_path: Path) -> list[Encoded]:
    encoding, red = Encoding(backbone.processor), draw(tmp_path)
    two = talk(user(red, "what?"), assistant("a cat"), user("hurt it"), assistant("no"), identity="2")
    records = [ask("hi", "yes", identity="1"), two, ask("colour of this?", "red", red, identity="3")]
    return [encoding.sample(record) for record in records]


@pytest.fixture
def batch(encoded: list[Encoded]) -> Batch:
    return Collate(0)(encoded)


def gradients(model: Any, sft: SFT, batch: Batch) -> tuple[Any, dict[str, Tensor]]:
    model.zero_grad()
    sums = sft(model, batch)
    sums.loss.backward()
    return sums, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def with_lora(model: Any, *targets: str) -> Any:
    torch.manual_seed(1)
    return get_peft_model(model, LoraConfig(r=2, target_modules=list(targets), init_lora_weights=False))


@pytest.mark.parametrize("tune", ["full", "lora", "lora_on_the_head"])
def test_supervised_logits_give_the_loss_and_gradients_of_all_logits(
    backbone: ComposedVLLM, batch: Batch, tune: str
) -> None:
    model = seeded_model(backbone)
    if tune != "full":
        model = with_lora(model, "q_proj", "down_proj", *(["lm_head"] if tune == "lora_on_the_head" else []))
    fast, fast_gradients = gradients(model, SFT(), batch)
    slow, slow_gradients = gradients(model, SFT("all"), batch)
    assert torch.allclose(fast.loss, slow.loss, rtol=1e-6)
    assert torch.allclose(fast.sample_loss, slow.sample_loss, rtol=1e-6)
    assert fast_gradients.keys() == slow_gradients.keys() and fast_gradients
    for name, gradient in slow_gradients.items():
        assert torch.allclose(fast_gradients[name], gradient, atol=1e-5), name


@pytest.mark.parametrize("logits", ["supervised", "all"])
def test_the_sum_is_transformers_own_mean_times_its_tokens(backbone: ComposedVLLM, batch: Batch, logits: str) -> None:
    model = seeded_model(backbone)
    tokens = int((batch.labels[:, 1:] != -100).sum())
    own = model(**batch.inputs, labels=batch.labels).loss * tokens
    sums = SFT(logits)(model, batch)
    assert torch.allclose(sums.loss, own, rtol=1e-5)
    assert int(sums.sample_tokens.sum()) == tokens


def test_each_sample_has_the_loss_that_it_has_alone(backbone: ComposedVLLM, batch: Batch, tmp_path: Path) -> None:
    model = seeded_model(backbone)
    sums = SFT()(model, batch)
    assert sums.sample_tokens.tolist() == [4, 6 + 3, 4]  # the letters of each answer and its end-of-turn token
    assert torch.allclose(sums.sample_loss.sum(), sums.loss)
    first = {name: value[:1] for name, value in batch.inputs.items() if name != "pixel_values"}
    alone = SFT()(model, Batch(first, batch.labels[:1], batch.samples[:1], batch.sources[:1], batch.ids[:1]))
    assert torch.allclose(alone.loss, sums.sample_loss[0], rtol=1e-5)


@pytest.mark.parametrize("logits", ["supervised", "all"])
def test_without_padding_loss_and_gradients_are_the_same(
    backbone: ComposedVLLM, encoded: list[Encoded], batch: Batch, logits: Literal["supervised", "all"]
) -> None:
    model = seeded_model(backbone)
    padded, padded_gradients = gradients(model, SFT("all"), batch)
    free, free_gradients = gradients(model, SFT(logits), Collate(0, padding_free=True)(encoded))
    assert torch.allclose(free.sample_loss, padded.sample_loss, rtol=1e-5)
    assert torch.equal(free.sample_tokens, padded.sample_tokens)
    assert torch.allclose(free.loss, padded.loss, rtol=1e-5)
    for name, gradient in padded_gradients.items():
        assert torch.allclose(free_gradients[name], gradient, atol=1e-5), name


def test_without_padding_a_sample_does_not_see_its_neighbours(backbone: ComposedVLLM, encoded: list[Encoded]) -> None:
    model, collate = seeded_model(backbone), Collate(0, padding_free=True)
    first = SFT()(model, collate(encoded))
    encoded[0].input_ids[5:8] = 20
    other = SFT()(model, collate(encoded))
    assert other.sample_loss[0] != first.sample_loss[0]
    assert torch.equal(other.sample_loss[1:], first.sample_loss[1:])


def test_logits_are_computed_where_a_token_is_supervised_and_nowhere_else(backbone: ComposedVLLM, batch: Batch) -> None:
    model = seeded_model(backbone)
    seen: list[torch.Size] = []
    model.lm_head.register_forward_hook(lambda _, args, out: seen.append(out.shape))
    SFT()(model, batch)
    assert seen[0][:2] == (1, int((batch.labels[:, 1:] != -100).sum()))


def test_nothing_is_left_on_the_head_even_after_an_error(backbone: ComposedVLLM, batch: Batch) -> None:
    model = seeded_model(backbone)
    batch.inputs["pixel_values"] = batch.inputs["pixel_values"][:1]
    with pytest.raises(Exception, match="Image features and image tokens do not match"):
        SFT()(model, batch)
    assert not model.lm_head._forward_pre_hooks
