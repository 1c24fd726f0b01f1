"""Answers chosen by likelihood: against a hand-made sum, in any batch, beside what cannot be encoded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from tiny import composed, seeded_model, talk

from vlsafe.answering import Decoding
from vlsafe.conversation import ImageRef, assistant, user
from vlsafe.data.encoding import IGNORE, Encoding
from vlsafe.models.responder import ModelResponder

OPTIONS = ("yes", "no", "a longer one", "no")


def test_the_option_with_the_largest_sum_of_log_probabilities_is_chosen(tokenizer: Path, picture: ImageRef) -> None:
    backbone = composed(tokenizer)
    model, encoding = seeded_model(backbone), Encoding(backbone.processor)
    prompts = [talk(user("is it?")), talk(user(picture, "what is this?")), talk(user("tell me"))]
    found = dict(ModelResponder(model, backbone, 2).respond(prompts, Decoding(options=OPTIONS)))
    assert found == dict(ModelResponder(model, backbone, 16).respond(prompts, Decoding(options=OPTIONS)))
    for index, prompt in enumerate(prompts):
        sums = []
        for option in OPTIONS:
            sample = encoding.sample(replace(prompt, turns=(*prompt.turns, assistant(option))))
            with torch.inference_mode():
                pixels = {name: value for name, value in sample.pixels.items()}
                logits = model(input_ids=sample.input_ids[None], **pixels).logits[0].log_softmax(-1)
            places = (sample.labels != IGNORE).nonzero()[:-1, 0].tolist()  # without the end of the turn
            sums.append(sum(float(logits[place - 1, sample.input_ids[place]]) for place in places))
        assert found[index].text == OPTIONS[sums.index(max(sums))]
        assert found[index].prompt == encoding.prompt(prompt).text
        assert (found[index].n_tokens, found[index].error) == (0, "")


def test_a_broken_prompt_is_its_own_error(tokenizer: Path, picture: ImageRef) -> None:
    backbone = composed(tokenizer)
    responder = ModelResponder(seeded_model(backbone), backbone)
    prompts = [talk(user("hi")), talk(user(ImageRef(picture.root, "missing.png"), "what?"))]
    found = dict(responder.respond(prompts, Decoding(options=("A", "B"))))
    assert found[0].error == ""
    assert (found[1].text, found[1].finish) == ("", "error")
    assert "missing picture" in found[1].error
