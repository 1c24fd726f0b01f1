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

from transformers import ProcessorMixin

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
)


def chat_template(name: str) -> str:
    """The Jinja text of one of our templates."""
    return TEMPLATES[name].read_text(encoding="utf-8")


def neutralise(text: str, special: Sequence[str]) -> str:
    """Break control tokens that stand in plain text, so that data cannot open a turn or claim a picture.

    ``<image>`` becomes ``< image>``: readable, and no longer the token.
    """
    for token in special:
        if token and token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


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


def opening_of(render: RenderPrompt) -> str:
    """What the template puts at the end of a prompt to open the answer, such as ``ASSISTANT:``."""
    probe = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    asked, told = render(probe, True), render(probe, False)
    return asked.removeprefix(told) if asked.startswith(told) else ""


def end_of_turn(render: Render, tokens: Sequence[str]) -> str | None:
    """The control token that the template puts after an answer: a model that writes it has finished."""
    probe = [("user", "hi"), ("assistant", "VLSAFESENTINEL")]
    rendered = render([{"role": role, "content": [{"type": "text", "text": text}]} for role, text in probe])
    after = rendered.rpartition("VLSAFESENTINEL")[2].lstrip()
    return next((token for token in tokens if after.startswith(token)), None)


def answer_spans(
    render: Render, messages: list[Message], text: str, end_tokens: Sequence[str], opening: str
) -> list[Span]:
    """Character spans ``[start, end)`` of the assistant's answers in ``text``, each with its end-of-turn token.

    White space between ``opening`` (:func:`opening_of`) and an answer belongs to the answer: a prompt ends before it,
    so the model must write it itself.

    Raises:
        ConfigError: the template rewrites answers, or puts no end token after them.

    Worked example, with ``E`` for the end token::

        messages   user "hi", assistant "yes"      text       "U:hi A:yesE"
        sentinel   user "hi", assistant "§0"       rendered   "U:hi A:§0E"   -> pieces "U:hi A:", "E"
        so the answer starts at len("U:hi A:") = 7, ends at 10, and with its end token at 11
    """
    answers = [_text(m) for m in messages if m["role"] == "assistant"]
    sentinels = [f"VLSAFESENTINEL{i}X" for i in range(len(answers))]
    replaced, left = [], iter(sentinels)
    for message in messages:
        content = [{"type": "text", "text": next(left)}] if message["role"] == "assistant" else message["content"]
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
        spans.append((start - _white_space_after(opening, piece), place + _end_of_turn(after, end_tokens)))
    return spans


def _white_space_after(opening: str, piece: str) -> int:
    _, found, tail = piece.rpartition(opening) if opening else ("", "", "")
    return len(tail) if found and tail.isspace() else 0


def _text(message: Message) -> str:
    return "\n".join(piece["text"] for piece in message["content"] if piece["type"] == "text")


def _end_of_turn(after: str, end_tokens: Sequence[str]) -> int:
    """Characters up to and including the end token that opens ``after`` (white space before it is allowed)."""
    opening = after.lstrip()
    for token in end_tokens:
        if opening.startswith(token):
            return len(after) - len(opening) + len(token)
    raise ConfigError(
        "the chat template puts no end-of-turn token after an answer, so the tuned model would never stop. "
        f"Choose a template that does: {', '.join(TEMPLATES.names())} (model.backbone.template)"
    )


def check_turns(conversation: Conversation) -> None:
    """Roles alternate user/assistant after an optional system turn, and no answer is empty."""
    roles = [turn.role for turn in conversation.turns if turn.role != "system"]
    where = f"{conversation.source}, record {conversation.id!r}"
    if not roles or roles[0] != "user" or any(a == b for a, b in pairwise(roles)):
        raise DataError(f"{where}: turns must alternate user and assistant, starting with user; got {roles}")
    for turn in conversation.turns:
        if turn.role == "assistant" and not turn.text.strip():
            raise DataError(f"{where}: an assistant answer is empty; give it text or remove the record")
