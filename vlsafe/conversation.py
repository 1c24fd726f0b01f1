"""The currency: a Conversation is the only thing that passes from sources to encoding and to responders."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class ImageRef:
    """A picture by reference: ``name`` inside ``root``, which is a folder or a zip file.

    Pictures are opened late, in the data workers, by :func:`vlsafe.data.images.open_image`, which also
    refuses names that leave the root.
    """

    root: Path
    name: str

    def __str__(self) -> str:
        return f"{self.root}/{self.name}"


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. ``content`` holds text and pictures in reading order, so a picture's place is kept."""

    role: Role
    content: tuple[str | ImageRef, ...]

    @property
    def text(self) -> str:
        """The text pieces joined, pictures left out."""
        return "\n".join(piece for piece in self.content if isinstance(piece, str))

    @property
    def images(self) -> tuple[ImageRef, ...]:
        return tuple(piece for piece in self.content if isinstance(piece, ImageRef))


@dataclass(frozen=True, slots=True)
class Conversation:
    """One training sample or one prompt.

    ``id`` is unique within ``source``. ``tags`` are facts to filter and group by
    (``{"subset": "unsafe", "category": "privacy"}``). Training samples end with an assistant turn,
    prompts with a user turn. ``changes``: what of its record was not taken as it stands, by kind, in words.
    """

    id: str
    source: str
    turns: tuple[Turn, ...]
    tags: dict[str, str] = field(default_factory=dict)
    changes: tuple[str, ...] = ()

    @property
    def images(self) -> tuple[ImageRef, ...]:
        return tuple(image for turn in self.turns for image in turn.images)


def user(*content: str | ImageRef) -> Turn:
    return Turn("user", content)


def assistant(text: str) -> Turn:
    return Turn("assistant", (text,))
