"""Answers: in batches as alone, each prompt's failure its own, and an identity that follows the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fitting import FROZEN, FULL, LORA, data, files, module, trainer
from tiny import ask, composed, draw, language_model, seeded_model, talk

from vlsafe.answering import Answer, Decoding
from vlsafe.conversation import Conversation, ImageRef, user
from vlsafe.data.collate import Collate
from vlsafe.data.encoding import Encoding
from vlsafe.models.adaptation import Components, Tuning
from vlsafe.models.greedy import greedy, suits
from vlsafe.models.responder import ModelResponder, by_generate, end_tokens, weights_fingerprint

SHORT = Decoding(max_new_tokens=12)


def answers(responder: ModelResponder, prompts: list[Conversation], decoding: Decoding = SHORT) -> list[Answer]:
    found = dict(responder.respond(prompts, decoding))
    assert sorted(found) == list(range(len(prompts)))
    return [found[index] for index in range(len(prompts))]


@pytest.fixture
def prompts(picture: ImageRef) -> list[Conversation]:
    blue = draw(picture.root, "blue.png", "blue")
    return [
        talk(user("hi")),
        talk(user(picture, "what is this, and what is it for?")),
        talk(user("tell me more about that")),
        talk(user(blue, "colour?")),
        talk(user(picture, blue, "which?")),
        talk(user("a" * 40)),
    ]


@pytest.mark.parametrize("encoder", ["clip", "efficientnet_lite0"])
def test_a_batch_gives_the_answers_that_its_prompts_get_alone(
    encoder: str, tokenizer: Path, prompts: list[Conversation]
) -> None:
    backbone = composed(tokenizer, encoder)
    model = seeded_model(backbone)
    together = answers(ModelResponder(model, backbone, batch_size=4), prompts)
    alone = answers(ModelResponder(model, backbone, batch_size=1), prompts)
    assert together == alone
    assert len({answer.text for answer in alone}) > 3
    assert [answer.prompt for answer in alone] == [Encoding(backbone.processor).prompt(p).text for p in prompts]


@pytest.mark.parametrize("encoder", ["clip", "efficientnet_lite0"])
@pytest.mark.parametrize("beginning", ["", "You answer in a few words. "])
@pytest.mark.parametrize("least", [1, 4])
def test_the_fast_path_gives_the_tokens_of_generate(
    encoder: str, beginning: str, least: int, tokenizer: Path, prompts: list[Conversation]
) -> None:
    """Rows of which some end early, so that they leave the batch; with and without a common beginning."""
    backbone = composed(tokenizer, encoder, system_prompt=beginning or None)
    model, encoding = seeded_model(backbone), Encoding(backbone.processor, backbone.system_prompt)
    assert suits(model)
    batch = Collate(0, "left")([encoding.prompt(prompt) for prompt in prompts])
    free = greedy(model, batch.inputs, [], 12)
    ends = sorted({row[2] for row in free[:2]} | {free[3][5]})  # tokens that end some rows soon, and others not
    fast = greedy(model, batch.inputs, ends, 12, least)
    told = by_generate(model, backbone.processor, batch.inputs, ends, Decoding(12, min_new_tokens=least))
    assert fast == [cut(row, ends) for row in told]
    assert len({len(row) for row in fast}) > 1
    one = Collate(0, "left")([encoding.prompt(prompts[1])])
    assert greedy(model, one.inputs, ends, 12, least) == fast[1:2]


def cut(row: list[int], ends: list[int]) -> list[int]:
    """Without the padding behind the end."""
    return row[: next((place + 1 for place, token in enumerate(row) if token in ends), len(row))]


def test_a_model_that_asks_for_more_than_the_likeliest_token_is_left_to_generate(tokenizer: Path) -> None:
    model = seeded_model(composed(tokenizer))
    assert suits(model)
    model.generation_config.repetition_penalty = 1.3
    assert not suits(model)


def test_left_padding_leaves_the_next_tokens_logits_alone(tokenizer: Path, prompts: list[Conversation]) -> None:
    backbone = composed(tokenizer)
    model, encoding = seeded_model(backbone), Encoding(backbone.processor)
    encoded = [encoding.prompt(prompt) for prompt in prompts]
    with torch.inference_mode():
        padded = Collate(0, "left")(encoded).inputs
        positions = padded["attention_mask"].cumsum(1).sub(1).clamp(min=0)
        together = model(**padded, position_ids=positions).logits[:, -1]
        alone = torch.cat([model(**Collate(0)([one]).inputs).logits[:, -1] for one in encoded])
    assert torch.allclose(together, alone, atol=1e-5)


def test_one_broken_prompt_does_not_stop_the_others(tokenizer: Path, prompts: list[Conversation]) -> None:
    backbone = composed(tokenizer)
    missing = ImageRef(prompts[1].images[0].root, "missing.png")
    broken = [prompts[0], talk(user(missing, "what?")), *prompts[2:]]
    responder = ModelResponder(seeded_model(backbone), backbone, batch_size=3)
    found, whole = answers(responder, broken), answers(responder, prompts)
    assert found[1].finish == "error" and found[1].text == "" and found[1].error.startswith("DataError: ")
    assert "missing.png" in found[1].error
    assert found[:1] + found[2:] == whole[:1] + whole[2:]


def test_a_batch_that_the_model_refuses_is_an_error_of_its_prompts_alone(
    tokenizer: Path, prompts: list[Conversation], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = composed(tokenizer)
    model = seeded_model(backbone)
    forward = model.forward

    def sometimes(**inputs: Any) -> Any:
        if "pixel_values" in inputs:
            raise torch.OutOfMemoryError("no memory left")
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", sometimes)
    found = answers(ModelResponder(model, backbone, batch_size=3), prompts)
    assert [answer.finish == "error" for answer in found] == [bool(prompt.images) for prompt in prompts]
    assert found[1].error == "OutOfMemoryError: no memory left"


def test_an_answer_says_how_it_ended(tokenizer: Path) -> None:
    backbone = composed(tokenizer)
    model = seeded_model(backbone)
    (cut,) = answers(ModelResponder(model, backbone), [talk(user("hi"))], Decoding(max_new_tokens=5))
    assert (cut.finish, cut.n_tokens, cut.error) == ("length", 5, "")

    def only(token: int) -> Any:
        def hook(_: Any, __: Any, logits: torch.Tensor) -> torch.Tensor:
            logits[..., token] = 1e4
            return logits

        return model.lm_head.register_forward_hook(hook)

    for end in (2, 4):  # the tokenizer's own end token, and ChatML's end of a turn
        hook = only(end)
        (ended,) = answers(ModelResponder(model, backbone), [talk(user("hi"))])
        hook.remove()
        assert (ended.finish, ended.n_tokens, len(ended.text)) == ("eos", 2, 1)  # min_new_tokens forbids it at first


def test_the_end_of_a_turn_ends_an_answer_whatever_the_configs_say(tokenizer: Path) -> None:
    backbone = composed(tokenizer)
    assert end_tokens(seeded_model(backbone), backbone.processor) == [2, 4]
    vicuna = composed(tokenizer, template="vicuna_v1")
    assert end_tokens(seeded_model(vicuna), vicuna.processor) == [2]
    several = composed(tokenizer, template="vicuna_v1", language=language_model(tokenizer, eos_token_id=[2, 3]))
    assert end_tokens(seeded_model(several), several.processor) == [2, 3]


def test_a_tuned_model_answers_what_it_learnt_and_stops(tokenizer: Path, tmp_path: Path) -> None:
    folder = files(tmp_path, text=1, pictures=3)
    table = Components(FROZEN, Tuning("full", 1e-2), Tuning("full", 1e-2))
    tuned = module(tokenizer, table, schedule="cosine")
    source = data(folder, batch_size=4, samples=400)
    trainer(folder, max_steps=100).fit(tuned, datamodule=source)
    responder = ModelResponder(tuned.model, tuned.backbone)  # type: ignore[arg-type]
    asked = [source.sources["text"][0], *(source.sources["pictures"][i] for i in range(3))]
    found = answers(responder, [Conversation(c.id, c.source, c.turns[:-1]) for c in asked])
    assert [answer.text for answer in found] == [c.turns[-1].text for c in asked]
    assert {answer.finish for answer in found} == {"eos"}


def test_answering_in_the_middle_of_training_leaves_frozen_parts_in_eval_mode(tokenizer: Path) -> None:
    tuned = module(tokenizer, Components(FROZEN, FULL, FULL), "efficientnet_lite0")
    tuned.configure_model()
    modes = [part.training for part in tuned.modules()]
    assert any(modes) and not all(modes)
    list(ModelResponder(tuned.model, tuned.backbone).respond([talk(user("hi"))], SHORT))  # type: ignore[arg-type]
    assert [part.training for part in tuned.modules()] == modes


def test_answering_in_the_middle_of_training_is_as_answering_after_it(
    tokenizer: Path, prompts: list[Conversation]
) -> None:
    tuned = module(tokenizer, encoder="efficientnet_lite0")
    tuned.configure_model()
    responder = ModelResponder(tuned.model, tuned.backbone)  # type: ignore[arg-type]
    during = answers(responder, prompts)
    tuned.eval()
    assert answers(responder, prompts) == during


# --- identity


def test_the_fingerprint_follows_every_weight_and_nothing_else(tokenizer: Path) -> None:
    model = seeded_model(composed(tokenizer))
    first = weights_fingerprint(model)
    assert weights_fingerprint(seeded_model(composed(tokenizer))) == first
    for name in ("lm_head.weight", "model.vision_tower.encoder.layers.0.mlp.fc1.bias"):
        parameter = model.get_parameter(name)
        with torch.no_grad():
            kept = parameter.view(-1)[-1].item()
            parameter.view(-1)[-1] += 1e-6
            assert weights_fingerprint(model) != first
            parameter.view(-1)[-1] = kept
    assert weights_fingerprint(model) == first
    assert weights_fingerprint(model.bfloat16()) != first


def test_a_model_whose_adapters_are_off_is_known_as_the_one_before_them(tokenizer: Path) -> None:
    """So a run that starts from an exported model finds what that model has answered already."""
    tuned = module(tokenizer, Components(FROZEN, FULL, LORA))
    tuned.configure_model()
    assert tuned.model is not None
    with torch.no_grad():
        for parameter in tuned.model.parameters():
            if parameter.requires_grad:
                parameter += 1
    before = weights_fingerprint(tuned.backbone.load_model())
    with tuned.before_tuning():
        assert weights_fingerprint(tuned.model) == before
    assert weights_fingerprint(tuned.model) != before


def test_identity_names_what_determines_an_answer(tokenizer: Path) -> None:
    backbone = composed(tokenizer, system_prompt="be safe")
    identity = ModelResponder(seeded_model(backbone), backbone).identity()
    assert identity["system_prompt"] == "be safe" and identity["dtype"] == "float32"
    plain = composed(tokenizer)
    other = ModelResponder(seeded_model(plain), plain).identity()
    assert identity["weights"] == other["weights"] and other["system_prompt"] is None
    assert identity["template"] == other["template"] and identity["image_fit"] == "pad"
    assert ask("q", "a").turns[0].text == "q"
