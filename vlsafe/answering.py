"""What a model is asked and what it answers: the contract between models and evaluation, which import it both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from vlsafe.conversation import Conversation


@dataclass(frozen=True, slots=True)
class Decoding:
    """How answers are generated. Greedy unless ``temperature`` is above 0.

    With ``options`` nothing is generated: the answer is the option that the model finds likeliest (sum of the log
    probabilities of its tokens, without the end of the turn), the first of equals.
    """

    max_new_tokens: int = 256
    min_new_tokens: int = 1
    temperature: float = 0.0
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a responder returns for one prompt. ``error`` is set instead of ``text`` when generation failed."""

    text: str
    prompt: str = ""
    n_tokens: int = 0
    finish: Literal["eos", "length", "error"] = "eos"
    error: str = ""


class Responder(Protocol):
    """Anything that answers prompts: a module in training, a checkpoint, a server."""

    def identity(self) -> dict[str, Any]:
        """Everything but the prompt and the decoding that determines an answer: weights hash, template hash,
        system prompt, precision. JSON-serialisable; hashed into every response key."""

    def respond(self, prompts: list[Conversation], decoding: Decoding) -> Iterator[tuple[int, Answer]]:
        """Yield ``(index into prompts, Answer)`` as answers become ready, in any order, each index once."""
