"""LLaVA's format: ``id``, ``image`` (a name, a list of names, or none) and ``conversations`` of human and gpt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlsafe.conversation import Conversation, ImageRef, Role, Turn
from vlsafe.data.problems import REPR, LeftOut, Policy
from vlsafe.data.sources.base import RecordSource
from vlsafe.data.sources.fields import Fields

PLACEHOLDER = "<image>"
SPEAKERS: dict[str, Role] = {"system": "system", "human": "user", "gpt": "assistant"}

ANSWER_FIRST = "the first turn, an answer to no question, is dropped"
PLAIN_TEXT = f"{PLACEHOLDER} is text, not the place of a picture"
NO_ANSWER = "an answer without text is not trained"
"""What is changed in a record."""

NO_QUESTION = "it holds an answer alone"
UNFINISHED = "it ends with a question"
EMPTY_QUESTION = "a question is empty"
EMPTY_END = "its last answer is without text"
"""Why nothing of a record is trained."""


class LLaVASource(RecordSource):
    """A LLaVA file: a JSON array or JSON Lines, also gzipped, or Parquet.

    ``images`` is the folder or zip file of the pictures, by default the file's own folder. Every ``<image>`` in a
    human message takes the record's next picture. As in LLaVA's ``preprocess_multimodal``, pictures move to the front
    of their message and white space around the rest of it is dropped; the separator between a picture and text belongs
    to the model's template. For pictures in the middle of text there is ``kind: messages``.

    Records that LLaVA's ``train.py`` accepts are read as it reads them, counted and listed: a first turn from ``gpt``
    is dropped; ``<image>`` in an answer, or in a record without pictures, is text; an answer without text in the middle
    is not trained. A record of which LLaVA masks everything is left out: one that ends with a question, has an empty
    one, or a last answer without text. Two rules are stricter than LLaVA's: an answer of white space alone is not
    trained either, and a record whose placeholders and pictures differ in number is malformed, also one without
    ``image`` that opens or closes its first question with ``<image>``. Raises as RecordSource.
    """

    def __init__(
        self,
        path: Path | str,
        images: Path | str | None = None,
        check_images: bool = True,
        name: str = "llava",
        on_bad_record: Policy = "error",
    ) -> None:
        self.root = Path(path).parent if images is None else Path(images)
        super().__init__(path, name, check_images, on_bad_record)

    def convert(self, row: Any, index: int) -> Conversation:
        fields = Fields(row)
        identity = fields.identity(index)
        turns, changes = _turns(fields, self._images(fields))
        fields.done()
        _refuse_untrained(turns)
        if any(turn.role == "assistant" and not turn.text.strip() for turn in turns):
            changes.append(NO_ANSWER)
        return Conversation(identity, self.name, tuple(turns), changes=tuple(dict.fromkeys(changes)))

    def _images(self, fields: Fields) -> list[ImageRef]:
        names = fields.row.get("image")
        if names is None:
            return []
        if isinstance(names, list):
            return [fields.image(self.root, name, f"'image'[{place}]") for place, name in enumerate(names)]
        return [fields.image(self.root, names)]


def _turns(fields: Fields, images: list[ImageRef]) -> tuple[list[Turn], list[str]]:
    """Written for speed: it runs for each of millions of messages when a large file is indexed."""
    turns: list[Turn] = []
    changes: list[str] = []
    placeholders, asked = 0, False
    for place, message in enumerate(fields.items("conversations")):
        speaker = SPEAKERS.get(message["from"]) if _whole(message) else None
        if speaker is None:
            _note_speaker(fields, message, f"'conversations'[{place}]")
            continue
        value = fields.check_text(message.get("value"), f"'conversations'[{place}] 'value'", empty=speaker != "system")
        if PLACEHOLDER not in value:
            turns.append(Turn(speaker, (value,)))
        elif speaker == "user" and (images or (not asked and _shows(value))):
            shown = value.count(PLACEHOLDER)
            rest = value.replace(PLACEHOLDER, "").strip()
            turns.append(Turn(speaker, (*images[placeholders : placeholders + shown], *([rest] if rest else []))))
            placeholders += shown
        else:
            changes.append(PLAIN_TEXT)
            turns.append(Turn(speaker, (value,)))
        asked = asked or speaker == "user"
    if placeholders != len(images):
        fields.note(f"{placeholders} {PLACEHOLDER} placeholders in the human messages, but {len(images)} pictures")
    if not fields.reasons:
        turns = _from_a_question(turns, changes)
        fields.check_order(turns, answered=False)
    return turns, changes


def _shows(question: str) -> bool:
    """Whether ``<image>`` stands where LLaVA's own records have it, though the record names no picture."""
    return question.startswith(PLACEHOLDER) or question.endswith(PLACEHOLDER)


def _from_a_question(turns: list[Turn], changes: list[str]) -> list[Turn]:
    first = 1 if turns and turns[0].role == "system" else 0
    if len(turns) == first or turns[first].role != "assistant":
        return turns
    if len(turns) == first + 1:
        raise LeftOut(NO_QUESTION)
    changes.append(ANSWER_FIRST)
    return turns[:first] + turns[first + 1 :]


def _refuse_untrained(turns: list[Turn]) -> None:
    """Raises LeftOut for a record of which LLaVA masks everything."""
    if turns[-1].role == "user":
        raise LeftOut(UNFINISHED)
    if any(turn.role == "user" and turn.content == ("",) for turn in turns):
        raise LeftOut(EMPTY_QUESTION)
    if not turns[-1].text.strip():
        raise LeftOut(EMPTY_END)


def _whole(message: Any) -> bool:
    return isinstance(message, dict) and isinstance(message.get("from"), str)


def _note_speaker(fields: Fields, message: Any, what: str) -> None:
    if isinstance(message, dict):
        known = ", ".join(SPEAKERS)
        fields.note(f"{what} is from {REPR.repr(message.get('from'))}; a message must be from one of: {known}")
    else:
        fields.note(f"{what} must be an object with 'from' and 'value'")
