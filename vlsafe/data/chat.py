"""From a Conversation to the template's text, and where in that text the assistant's answers stand.

Labels come from the chat template itself: the conversation is rendered once with its real answers and once with a
sentinel in the place of each. What stands around the sentinels is the template's own text, so the answers' character
spans follow without tokenising any piece on its own (pitfalls A1). An answer's span starts where a prompt
ends, and includes the end-of-turn token after it, or the model would never learn to start or to stop (A3).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from vlsafe.conversation import Conversation, ImageRef, Turn
from vlsafe.errors import ConfigError, DataError
from vlsafe.table import Table

Message = dict[str, Any]
Span = tuple[int, int]
Render = Callable[[list[Message]], str]
RenderPrompt = Callable[[list[Message], bool], str]

_HERE = Path(__file__).parent / "templates"
TEMPLATES = Table(
    "chat template",
    chatml=_HERE / "chatml.jinja",
    vicuna_v1=_HERE / "vicuna_v1.jinja",
    llava_v1=_HERE / "llava_v1.jinja",
    paligemma=_HERE / "paligemma.jinja",
    plain=_HERE / "plain.jinja",
)

_BY_LINE_BREAK = "{#- an answer ends with a line break -#}"
"""Stands in a template without an end-of-turn token: LLaVA's ``plain`` (llava/conversation.py), images and captions
alone. Its first stage trains a projector, and no model that would have to learn when to stop."""


_UNMARKED, _MARKED = "{%- set mark = '' -%}", "{%- set mark = ' ' -%}"


def chat_template(name: str) -> str:
    """The Jinja text of one of our templates."""
    return TEMPLATES[name].read_text(encoding="utf-8")


def fitted_template(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """One of our templates as ``tokenizer`` needs it to give the ids of training.

    LLaVA and MiniGPT-v2 tokenise the text after a picture, and a whole conversation, on its own, so it begins with the
    white space mark that Llama's tokenizer puts before a text. In one piece with its control tokens the same text keeps
    that mark in some versions of the tokenizer only (``legacy``); a space written there gives it in all of them. For
    tokenizers without such a mark the space would be a token more, and the template stays as it is.
    """
    special = tokenizer.eos_token
    if _UNMARKED not in text or special is None:
        return text
    alone = tokenizer("A", add_special_tokens=False)["input_ids"]
    spaced = tokenizer(f"{special} A", add_special_tokens=False)["input_ids"][1:]
    return text.replace(_UNMARKED, _MARKED) if spaced == alone else text


def neutralise(text: str, special: Sequence[str]) -> str:
    """Break control tokens that stand in plain text, so that data cannot open a turn or claim a picture.

    ``<image>`` becomes ``< image>``: readable, and no longer the token.
    """
    for token in special:
        if token and token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def control_tokens(conversation: Conversation, special: Sequence[str]) -> int:
    """How many control tokens stand in the conversation's text, where they are broken up."""
    texts = [piece for turn in conversation.turns for piece in turn.content if isinstance(piece, str)]
    return sum(text.count(token) for text in texts for token in special if token)


def special_tokens(processor: ProcessorMixin) -> list[str]:
    """Every control token of the processor, longest first; the named roles alone would miss ``<|im_start|>``."""
    tokenizer = processor.tokenizer
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return sorted(added | {*tokenizer.all_special_tokens, processor.image_token}, key=len, reverse=True)


def messages_of(conversation: Conversation, special: Sequence[str], system: str | None) -> list[Message]:
    """The Hugging Face message list. ``system`` stands first unless the conversation brings its own system turn."""
    turns = conversation.turns
    if system and turns[0].role != "system":
        turns = (Turn("system", (system,)), *turns)
    return [{"role": turn.role, "content": [_piece(piece, special) for piece in _pieces(turn)]} for turn in turns]


def _pieces(turn: Turn) -> tuple[str | ImageRef, ...]:
    """An answer is one text, whatever pieces it came in: templates differ in what they put between pieces."""
    return (turn.text, *turn.images) if turn.role == "assistant" else turn.content


def _piece(piece: str | ImageRef, special: Sequence[str]) -> Message:
    if isinstance(piece, ImageRef):
        return {"type": "image"}
    return {"type": "text", "text": neutralise(piece, special)}


class Renderer:
    """Renders messages by the processor's chat template, with or without the opening of an answer.

    Templates of language models want a message's content as one text, not as a list of pieces: they fail on a list or
    print it. For those the pieces are joined, a picture as its token on a line of its own.
    """

    def __init__(self, processor: ProcessorMixin) -> None:
        self.processor = processor
        self._as_text = False
        if line_breaks_of(processor.chat_template):  # ``plain`` leaves out the user's words, which are the probe
            return
        piece = {"type": "text", "text": "VLSAFESENTINEL"}
        try:
            shown = self([{"role": "user", "content": [piece]}])
        except (TypeError, TemplateError):
            shown = ""
        self._as_text = "VLSAFESENTINEL" not in shown or str(piece) in shown

    def __call__(self, messages: list[Message], prompt: bool = False) -> str:
        if self._as_text:
            messages = [message | {"content": self._joined(message["content"])} for message in messages]
        return self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)

    def _joined(self, content: list[Message]) -> str:
        image = f"{self.processor.image_token}\n"
        return "".join(image if piece["type"] == "image" else piece["text"] for piece in content)


def opening_of(render: RenderPrompt) -> tuple[str, str]:
    """What the template puts at the end of a prompt to open the answer, such as ``ASSISTANT:``, and what it then puts
    before an answer: a space, or Qwen3's empty thoughts. The model must write the latter itself."""
    probe = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    asked, told = render(probe, True), render(probe, False)
    if not asked.startswith(told):
        return "", ""
    answered = render([*probe, {"role": "assistant", "content": [{"type": "text", "text": "VLSAFESENTINEL"}]}], False)
    lead = answered.removeprefix(asked).partition("VLSAFESENTINEL")[0] if answered.startswith(asked) else ""
    return asked.removeprefix(told), lead


def end_of_turn(render: Render, tokens: Sequence[str]) -> str | None:
    """The control token that the template puts after an answer: a model that writes it has finished."""
    probe = [("user", "hi"), ("assistant", "VLSAFESENTINEL")]
    rendered = render([{"role": role, "content": [{"type": "text", "text": text}]} for role, text in probe])
    after = rendered.rpartition("VLSAFESENTINEL")[2].lstrip()
    return next((token for token in tokens if after.startswith(token)), None)


def answer_spans(
    render: Render, messages: list[Message], text: str, end_tokens: Sequence[str], opening: str, lead: str
) -> list[Span]:
    """Character spans ``[start, end)`` of the assistant's answers in ``text``, each with its end-of-turn token. An
    answer without text has none: it is never trained.

    ``lead`` between ``opening`` (:func:`opening_of`) and an answer belongs to the answer: a prompt ends before it, so
    the model must write it itself.

    Raises:
        ConfigError: the template rewrites answers, or puts no end token after them.

    Worked example, with ``E`` for the end token::

        messages   user "hi", assistant "yes"      text       "U:hi A:yesE"
        sentinel   user "hi", assistant "§0"       rendered   "U:hi A:§0E"   -> pieces "U:hi A:", "E"
        so the answer starts at len("U:hi A:") = 7, ends at 10, and with its end token at 11
    """
    answers = [_text(m) for m in messages if _answers(m)]
    sentinels = [f"VLSAFESENTINEL{i}X" for i in range(len(answers))]
    replaced, left = [], iter(sentinels)
    for message in messages:
        content = [{"type": "text", "text": next(left)}] if _answers(message) else message["content"]
        replaced.append({"role": message["role"], "content": content})
    pieces = re.split("|".join(sentinels), render(replaced)) if sentinels else [text]
    if len(pieces) != len(answers) + 1:
        raise ConfigError(
            "the chat template repeats or drops assistant answers; give a template with --model.backbone.template"
        )
    spans, place = [], 0
    for piece, answer, after in zip(pieces, answers, pieces[1:], strict=False):
        start = place + len(piece)
        answer = answer if text.startswith(answer + after, start) else answer.strip()
        if not text.startswith(piece, place) or not text.startswith(answer + after, start):
            raise ConfigError("the chat template rewrites assistant answers, so they cannot be found in its text")
        place = start + len(answer)
        led = opening and piece.endswith(opening + lead)
        spans.append((start - len(lead) if led else start, place + _end_of_turn(after, end_tokens)))
    return spans


def _answers(message: Message) -> bool:
    return message["role"] == "assistant" and bool(_text(message).strip())


def _text(message: Message) -> str:
    return "\n".join(piece["text"] for piece in message["content"] if piece["type"] == "text")


def line_breaks_of(template: str) -> list[str]:
    """What ends an answer beside control tokens: a line break, in a template that says so."""
    return ["\n"] if _BY_LINE_BREAK in template else []


def _end_of_turn(after: str, end_tokens: Sequence[str]) -> int:
    """Characters up to and including the end token that opens ``after`` (white space before it is allowed)."""
    if "\n" in end_tokens and after.startswith("\n"):
        return 1
    opening = after.lstrip()
    for token in end_tokens:
        if opening.startswith(token):
            return len(after) - len(opening) + len(token)
    raise ConfigError(
        "the chat template puts no end-of-turn token after an answer, so the tuned model would never stop. "
        f"Choose a template that does: {', '.join(TEMPLATES.names())} (model.backbone.template)"
    )


def check_turns(conversation: Conversation) -> None:
    """Roles alternate user/assistant after an optional system turn, and the last answer is not empty."""
    roles = [turn.role for turn in conversation.turns if turn.role != "system"]
    where = f"{conversation.source}, record {conversation.id!r}"
    if not roles or roles[0] != "user" or any(a == b for a, b in pairwise(roles)):
        raise DataError(f"{where}: turns must alternate user and assistant, starting with user; got {roles}")
    last = conversation.turns[-1]
    if last.role == "assistant" and not last.text.strip():
        raise DataError(f"{where}: its last answer is empty; give it text or remove the record")
