"""The hand-written wording: topics, patterns and texts, read from the ``wording`` folder of this package."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from vlsafe.errors import DataError

Split = Literal["train", "test"]
SLOT = re.compile(r"\{([^}]+)\}")


@dataclass(frozen=True, slots=True)
class Topic:
    """Something a person asks for: ``wash`` / ``washing`` + ``{car}``.

    ``answer`` is empty for harmful topics, ``family`` for harmless ones (see families.toml).
    """

    verb: str
    ing: str
    rest: str
    family: str = ""
    answer: str = ""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The object kinds named in the topic, in reading order."""
        return tuple(SLOT.findall(self.rest))

    def act(self, names: dict[str, str] | None = None) -> str:
        """``wash a car``, or ``wash the car in this picture`` when ``names`` says so."""
        return f"{self.verb} {self.object(names)}"

    def gerund(self, names: dict[str, str] | None = None) -> str:
        return f"{self.ing} {self.object(names)}"

    def object(self, names: dict[str, str] | None = None) -> str:
        return SLOT.sub(lambda slot: (names or {}).get(slot[1], with_article(slot[1])), self.rest)


@dataclass(frozen=True, slots=True)
class Question:
    """A question of knowledge: direct wordings, the same as an indirect clause, and its answer."""

    clause: str
    direct: tuple[str, ...]
    answer: str


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of harm: VLGuard's category names, reasons to refuse, things to offer instead."""

    category: str
    subcategory: str
    why: tuple[str, ...]
    offer: tuple[str, ...]


def with_article(noun: str) -> str:
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


@cache
def table(name: str) -> dict[str, Any]:
    """A TOML file of the ``wording`` folder."""
    return tomllib.loads(_text(f"{name}.toml"))


@cache
def families() -> dict[str, Family]:
    return {
        name: Family(row["category"], row["subcategory"], tuple(row["why"]), tuple(row["offer"]))
        for name, row in table("families").items()
    }


@cache
def harms(split: Split) -> tuple[Topic, ...]:
    return tuple(_topic(phrase, family=family) for family, phrase in rows(f"harms_{split}", 2))


@cache
def slogans(split: Split) -> tuple[tuple[str, Topic], ...]:
    """Harmful sign texts, each with what it calls for."""
    return tuple((slogan, _topic(phrase, family=family)) for family, slogan, phrase in rows(f"slogans_{split}", 3))


@cache
def advice(split: Split) -> tuple[Topic, ...]:
    """Harmless requests about a drawn object; ``{it}`` in the answer stands for that object."""
    return tuple(_topic(phrase, answer=answer) for phrase, answer in rows(f"advice_{split}", 2, " = "))


@cache
def everyday(name: str) -> tuple[Topic | Question, ...]:
    """The harmless text requests of one file: topics and questions, in the file's order."""
    found: list[Topic | Question] = []
    for ask, answer in rows(name, 2, " = "):
        if ask.startswith("? "):
            clause, direct = ask[2:].split(" | ")
            found.append(Question(clause, (direct,), answer))
        else:
            found.append(_topic(ask, answer=answer))
    return tuple(found)


@cache
def facts() -> tuple[Question, ...]:
    return tuple(
        Question(row["clause"].format(*values), (row["direct"].format(*values),), row["answer"].format(*values))
        for row in table("facts_train").values()
        for values in row["rows"]
    )


@cache
def rows(name: str, width: int, mark: str = " | ") -> tuple[tuple[str, ...], ...]:
    """The lines of a text file, cut into ``width`` cells. Raises DataError for a line of another width."""
    found = []
    for number, line in enumerate(_text(f"{name}.txt").splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        cells = tuple(line.split(mark, width - 1))
        if len(cells) != width:
            raise DataError(f"wording/{name}.txt, line {number}: expected {width} parts divided by {mark!r}")
        found.append(cells)
    return tuple(found)


def _topic(phrase: str, family: str = "", answer: str = "") -> Topic:
    verbs, rest = phrase.split(" ", 1)
    verb, ing = verbs.split("/")
    return Topic(verb, ing, rest, family, answer)


def _text(name: str) -> str:
    return files("vlsafe.data.drawn").joinpath("wording", name).read_text(encoding="utf-8")
