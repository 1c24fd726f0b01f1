"""LLaVA's format: ``id``, ``image`` (a name, a list of names, or none) and ``conversations`` of human and gpt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlsafe.conversation import Conversation, ImageRef, Role, Turn
from vlsafe.data.problems import REPR, Policy
from vlsafe.data.sources.base import RecordSource
from vlsafe.data.sources.fields import Fields

PLACEHOLDER = "<image>"
SPEAKERS: dict[str, Role] = {"system": "system", "human": "user", "gpt": "assistant"}


class LLaVASource(RecordSource):
    """A LLaVA file: a JSON array or JSON Lines, also gzipped, or Parquet.

    ``images`` is the folder or zip file of the pictures, by default the file's own folder. Every ``<image>`` in a
    human message takes the record's next picture, at its place between the pieces of text; white space around it
    is dropped, because the separator between a picture and text belongs to the model's template.
    Raises as RecordSource; a record whose placeholders and pictures differ in number is malformed.
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
        images = self._images(fields)
        turns = _turns(fields, images)
        fields.done()
        return Conversation(identity, self.name, turns)

    def _images(self, fields: Fields) -> list[ImageRef]:
        names = fields.row.get("image")
        if names is None:
            return []
        if isinstance(names, list):
            return [fields.image(self.root, name, f"'image'[{place}]") for place, name in enumerate(names)]
        return [fields.image(self.root, names)]


def _turns(fields: Fields, images: list[ImageRef]) -> tuple[Turn, ...]:
    """Written for speed: it runs for each of millions of messages when a large file is indexed."""
    turns: list[Turn] = []
    placeholders = 0
    for place, message in enumerate(fields.items("conversations")):
        speaker = SPEAKERS.get(message["from"]) if _whole(message) else None
        if speaker is None:
            _note_speaker(fields, message, f"'conversations'[{place}]")
            continue
        value = fields.check_text(message.get("value"), f"'conversations'[{place}] 'value'")
        if PLACEHOLDER not in value:
            turns.append(Turn(speaker, (value,)))
        elif speaker == "user":
            pieces = value.split(PLACEHOLDER)
            turns.append(Turn(speaker, _content(pieces, images[placeholders : placeholders + len(pieces) - 1])))
            placeholders += len(pieces) - 1
        else:
            fields.note(
                f"'conversations'[{place}] is not a human message, but holds {PLACEHOLDER}; "
                "only human messages show pictures"
            )
    if placeholders != len(images):
        fields.note(f"{placeholders} {PLACEHOLDER} placeholders in the human messages, but {len(images)} pictures")
    if not fields.reasons:
        fields.check_order(turns)
    return tuple(turns)


def _content(pieces: list[str], images: list[ImageRef]) -> tuple[str | ImageRef, ...]:
    """Text and pictures in turn."""
    content: list[str | ImageRef] = [pieces[0].strip()]
    for image, piece in zip(images, pieces[1:], strict=False):
        content += [image, piece.strip()]
    return tuple(piece for piece in content if piece != "")


def _whole(message: Any) -> bool:
    return isinstance(message, dict) and isinstance(message.get("from"), str)


def _note_speaker(fields: Fields, message: Any, what: str) -> None:
    if isinstance(message, dict):
        known = ", ".join(SPEAKERS)
        fields.note(f"{what} is from {REPR.repr(message.get('from'))}; a message must be from one of: {known}")
    else:
        fields.note(f"{what} must be an object with 'from' and 'value'")
