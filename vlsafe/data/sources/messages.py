"""The conversational form: ``messages`` of ``role`` and ``content``, ``images`` beside them; columns by mapping."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlsafe.conversation import Conversation, ImageRef, Role, Turn, assistant, user
from vlsafe.data.problems import REPR, Policy
from vlsafe.data.sources.base import RecordSource
from vlsafe.data.sources.fields import Fields
from vlsafe.errors import ConfigError

PLACEHOLDER = "<image>"
ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
ASKED = ("messages", "question", "answer", "system", "id", "images")
"""What a column can be mapped to: either messages, or a question and its answer."""


class MessagesSource(RecordSource):
    """``{"messages": [{"role", "content"}], "images": [name, ...]}`` records; JSON, JSON Lines, gzip or Parquet.

    ``content`` is text, in which every ``<image>`` takes the next picture, or a list of ``{"type": "text", "text"}``
    and ``{"type": "image"}``. Pictures that no message places stand before the first question. ``from`` and ``value``,
    and the roles ``human`` and ``gpt``, are understood too. Raises as RecordSource, ConfigError for a wrong mapping.

    Args:
        columns: ``{messages, images, id, system, question, answer}`` -> the column that holds it, for other names.
        tags: columns to keep as tags.
        images: folder or zip file of the pictures, by default the file's own folder.
    """

    def __init__(
        self,
        path: Path | str,
        columns: dict[str, str] | None = None,
        tags: list[str] | None = None,
        images: Path | str | None = None,
        check_images: bool = True,
        name: str = "messages",
        on_bad_record: Policy = "error",
    ) -> None:
        self.columns = checked_columns(columns)
        self.tags = tags or []
        self.root = Path(path).parent if images is None else Path(images)
        super().__init__(path, name, check_images, on_bad_record)

    def convert(self, row: Any, index: int) -> Conversation:
        fields = Fields(row)
        named = fields.row.get(self.columns["images"])
        names = named if isinstance(named, list) else [] if named is None else [named]
        pictures = [fields.image(self.root, name, f"picture {place}") for place, name in enumerate(names)]
        return conversation_of(fields, index, self.name, self.columns, self.tags, pictures)


def checked_columns(columns: dict[str, str] | None) -> dict[str, str]:
    """The mapping with its defaults. Raises ConfigError for what no column can be mapped to."""
    unknown = sorted(set(columns or {}) - set(ASKED))
    if unknown:
        raise ConfigError(f"no column can be mapped to {', '.join(unknown)}; valid: {', '.join(ASKED)}")
    return {asked: asked for asked in ASKED} | (columns or {})


def conversation_of(
    fields: Fields, index: int, source: str, columns: dict[str, str], tags: Sequence[str], pictures: list[ImageRef]
) -> Conversation:
    """The Conversation of a row whose pictures are ``pictures``. Raises BadRecord with every reason against it."""
    identity = fields.identity(index, columns["id"])
    left = list(pictures)
    if columns["messages"] in fields.row:
        turns = [
            _turn(fields, message, f"message {n}", left) for n, message in enumerate(fields.items(columns["messages"]))
        ]
    else:
        question, answer = fields.text(columns["question"]), fields.text(columns["answer"])
        turns = [user(*_placed(question, left)), assistant(answer)]
    system = fields.text(columns["system"], optional=True)
    if system.strip():
        turns.insert(0, Turn("system", (system,)))
    if left and len(left) == len(pictures):  # nothing says where they belong
        first = next((n for n, turn in enumerate(turns) if turn.role == "user"), 0)
        turns[first : first + 1] = [Turn(turn.role, (*left, *turn.content)) for turn in turns[first : first + 1]]
    elif left:
        fields.note(f"{len(pictures)} pictures, of which the messages place {len(pictures) - len(left)}")
    if not fields.reasons:
        fields.check_order(turns)
    kept = {tag: fields.plain(tag) for tag in tags if fields.row.get(tag) is not None}
    fields.done()
    return Conversation(identity, source, tuple(turns), kept)


def _turn(fields: Fields, message: Any, what: str, left: list[ImageRef]) -> Turn:
    row = message if isinstance(message, dict) else {}
    role = row.get("role", row.get("from"))
    if not isinstance(role, str) or role not in ROLES:
        fields.note(f"{what} is of the role {REPR.repr(role)}; a message must be of one of: {', '.join(ROLES)}")
        role = "user"
    content = row.get("content", row.get("value"))
    if ROLES[role] != "user":
        return Turn(ROLES[role], (fields.check_text(_text(content), what),))
    if not isinstance(content, list):
        return Turn("user", tuple(_placed(fields.check_text(content, what), left)))
    pieces: list[str | ImageRef] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "image" and left:
            pieces.append(left.pop(0))
        elif kind == "text":
            pieces.append(fields.check_text(part.get("text"), f"{what} text", empty=True))
        else:
            fields.note(
                f"{what} has more pictures than the record"
                if kind == "image"
                else f"{what}: unknown part {REPR.repr(kind)}"
            )
    if not any(pieces):
        fields.note(f"{what} is empty; it must hold text or a picture")
    return Turn("user", tuple(piece for piece in pieces if piece != ""))


def _text(content: Any) -> Any:
    """The text of an answer, which holds no pictures; whatever is not of a known form stays as it is."""
    if isinstance(content, list) and all(
        isinstance(part, dict) and isinstance(part.get("text"), str) for part in content
    ):
        return "\n".join(part["text"] for part in content)
    return content


def _placed(text: str, left: list[ImageRef]) -> list[str | ImageRef]:
    """Text with the next pictures in the place of its placeholders, as long as there are any."""
    if PLACEHOLDER not in text or not left:
        return [text]
    pieces = text.split(PLACEHOLDER)
    content: list[str | ImageRef] = [pieces[0].strip()]
    for piece in pieces[1:]:
        content += [*([left.pop(0)] if left else [PLACEHOLDER]), piece.strip()]
    return [piece for piece in content if piece != ""]
