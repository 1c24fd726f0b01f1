"""Chat templates that real language models bring: our ids are those of transformers' own rendering of them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import composed, golden, talk
from tokenizers import AddedToken
from transformers import AutoTokenizer, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from vlsafe.conversation import Conversation, ImageRef, Turn, assistant, user
from vlsafe.data.encoding import Encoding

CASES = {
    "one turn": (user("Hi there"), assistant("Yes, 7.")),
    "two turns": (user("Hi"), assistant("A cat.\n\nNo?"), user("Why {'so'}?"), assistant("So.")),
    "system": (Turn("system", ("Be kind.",)), user("Hi"), assistant("Yes")),
}
TRAINED = {
    "qwen3": {
        "one turn": "<think>\n\n</think>\n\nYes, 7.<|im_end|>",
        "two turns": "A cat.\n\nNo?<|im_end|><think>\n\n</think>\n\nSo.<|im_end|>",
        "system": "<think>\n\n</think>\n\nYes<|im_end|>",
    },
    "llama3_1": {
        "one turn": "Yes, 7.<|eot_id|>",
        "two turns": "A cat.\n\nNo?<|eot_id|>So.<|eot_id|>",
        "system": "Yes<|eot_id|>",
    },
    "gemma3": {
        "one turn": "Yes, 7.<end_of_turn>",
        "two turns": "A cat.\n\nNo?<end_of_turn>So.<end_of_turn>",
        "system": "Yes<end_of_turn>",
    },
}
"""What is supervised: each answer with the token that ends it. Qwen3's template puts empty thoughts before the last
answer but not into a prompt, so the model must write them itself."""
IDS = {
    "qwen3": "151644 872 198 13048 1052 151645 198 151644 77091 198 151667 271 151668 271 9454 11 220 22 13 151645 198",
    "llama3_1": "128000 128006 882 128007 271 13347 1070 128009 128006 78191 128007 271 9642 11 220 22 13 128009",
    "gemma3": "2 105 2364 107 10979 993 106 107 105 4368 107 10784 236764 236743 236832 236761 106 107",
}
"""Of "one turn", as transformers gave them."""


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_ids_are_those_of_the_tokenizers_own_template_and_labels_cover_the_answers(
    shared_data: Path, picture: ImageRef, name: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / name)
    template = tokenizer.chat_template
    own = {case: tokenizer.apply_chat_template(_messages(turns), return_dict=False) for case, turns in CASES.items()}
    tokenizer.add_tokens([AddedToken("<image>", special=True, normalized=False)])
    images = CLIPImageProcessorPil(crop_size=16, size={"shortest_edge": 16})
    encoding = Encoding(LlavaProcessor(images, tokenizer, patch_size=16, chat_template=template))
    for case, turns in CASES.items():
        conversation = talk(*turns)
        encoded = encoding.sample(conversation)
        assert encoded.input_ids.tolist() == own[case], case
        assert tokenizer.decode(encoded.labels[encoded.labels != -100]) == TRAINED[name][case], case
        prompt = encoding.prompt(talk(*turns[:-1])).input_ids
        assert encoded.input_ids[: len(prompt)].tolist() == prompt.tolist()
        assert encoded.labels[len(prompt)] != -100, "the next token is to be learnt"
    assert own["one turn"] == [int(i) for i in IDS[name].split()]
    if name != "gemma3":  # whose template has the picture token of its own processor
        shown = encoding.sample(talk(user(picture, "Hi there"), assistant("Yes, 7.")))
        assert "<image>\nHi there" in shown.text
        assert shown.supervised == encoding.sample(talk(*CASES["one turn"])).supervised


def _messages(turns: tuple[Turn, ...]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.text} for turn in turns]


PLAIN = "{% for m in messages %}{{ '<|im_start|>' + m['content'] | trim + '</s>' }}{% endfor %}"
PRINTED = "{% for m in messages %}{{ '<|im_start|>' }}{{ m['content'] }}{{ '</s>' }}{% endfor %}"


@pytest.mark.parametrize("template", [PLAIN, PRINTED], ids=["fails on a list", "prints a list"])
def test_a_template_that_wants_one_text_gets_it(tokenizer: Path, picture: ImageRef, template: str) -> None:
    processor = composed(tokenizer).processor
    processor.chat_template = template
    encoding = pickle.loads(pickle.dumps(Encoding(processor)))
    asked: Callable[..., Conversation] = lambda *content: talk(user(*content), assistant("yes"))  # noqa: E731
    encoded = encoding.sample(asked(picture, "hi"))
    expected = golden("<|im_start|><image>\nhi</s><|im_start|>[[yes</s>]]")
    assert (encoded.input_ids.tolist(), encoded.labels.tolist()) == expected
    again = pickle.loads(pickle.dumps(encoding)).sample(asked("hi"))
    assert (again.input_ids.tolist(), again.labels.tolist()) == golden("<|im_start|>hi</s><|im_start|>[[yes</s>]]")
