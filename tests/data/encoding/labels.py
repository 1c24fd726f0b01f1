"""Shared by the tests of encoding: a template written out, and how labels are read."""

from __future__ import annotations

from tiny import talk

from vlsafe.conversation import Conversation, ImageRef, assistant, user
from vlsafe.data.encoding import Encoded

VICUNA = (
    "<s>A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions. "
)


def shown(encoded: Encoded) -> tuple[list[int], list[int]]:
    return encoded.input_ids.tolist(), encoded.labels.tolist()


def two_turns(picture: ImageRef) -> Conversation:
    """A safe picture of VLGuard: a harmless question, then a harmful one that is refused, under one picture."""
    return talk(user(picture, "what?"), assistant("a cat"), user("hurt it"), assistant("no"))
