"""The reviewed templates, and how a request is put into one."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

AS_IT_IS = "{text}"
AS_AN_ORDER = "{Action}."

_POLITE = re.compile(r"(?:(?:can|could|would|will) you |please )*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Introduced:
    """A request in a template. ``voice`` is the form that an action has inside of it, empty where it kept its own."""

    text: str
    template: str
    voice: str


@dataclass(frozen=True, slots=True)
class Opening:
    """A first word, in lower case, and the templates that begin with it."""

    word: str
    templates: tuple[str, ...]

    def introduce(self, texts: Sequence[str], turn: int) -> list[Introduced]:
        """All the texts in one template; ``turn`` goes round those that fit all of them, and then round the voices."""
        unchanged = [each for each in (AS_IT_IS, AS_AN_ORDER) if self._fits(each, texts)][:1]
        fitting = unchanged + [each for each in self.templates if self._fits(each, texts)]
        rounds, place = divmod(turn, len(fitting))
        voices = table("templates.toml")["action"]["voices"]
        return [_introduced(fitting[place], text, voices[rounds % len(voices)]) for text in texts]

    def _fits(self, template: str, texts: Sequence[str]) -> bool:
        if AS_IT_IS not in template and not all(map(action, texts)):
            return False
        return all(_introduced(template, text, AS_IT_IS).text.split()[0].lower() == self.word for text in texts)


@cache
def table(name: str) -> dict[str, Any]:
    """``templates.toml`` or ``refusals.toml``."""
    return tomllib.loads(files("vlsafe.data.balance").joinpath(name).read_text(encoding="utf-8"))


@cache
def openings() -> tuple[Opening, ...]:
    rows = table("templates.toml")["openings"]
    return tuple(Opening(row["word"], tuple(row["templates"])) for row in rows)


@lru_cache(maxsize=4096)
def action(text: str) -> str:
    """``Can you describe the scene?`` -> ``describe the scene``; empty where the text is no single order."""
    polite = _POLITE.match(text)
    phrase = text[polite.end() if polite else 0 :].strip().rstrip(".?! ")
    verb = phrase.split()[0].lower() if phrase else ""
    if verb not in table("templates.toml")["action"]["verbs"] or re.search(r"[.?!:;]\s", phrase):
        return ""
    return phrase[0].lower() + phrase[1:]


def _introduced(template: str, text: str, voice: str) -> Introduced:
    if template == AS_IT_IS:
        return Introduced(text, template, "")
    if AS_IT_IS in template:
        voice = voice if action(text) else ""
        inner = _as_action(voice, text) if voice else text.strip()
        return Introduced(template.replace(AS_IT_IS, inner), template, voice)
    return Introduced(_as_action(template, text), template, "")


def _as_action(template: str, text: str) -> str:
    phrase = action(text)
    # replace, not format: requests may hold braces
    return template.replace("{Action}", phrase[:1].upper() + phrase[1:]).replace("{action}", phrase)
