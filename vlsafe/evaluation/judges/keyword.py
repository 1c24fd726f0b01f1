"""Judges that look for phrases. The lists are data files beside this one, each with its origin and its rule."""

from __future__ import annotations

import hashlib
import re
import tomllib
import unicodedata
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from vlsafe.evaluation.judges.base import Judge
from vlsafe.evaluation.records import Item, Label, Response

_QUOTES = str.maketrans("\u2018\u2019\u201b\u02bc\u00b4\u0060\u201c\u201d", "''''''\"\"")


@dataclass(frozen=True, slots=True)
class Group:
    """One way to refuse: patterns that give ``label`` unless the text also matches ``unless``."""

    name: str
    label: Label
    patterns: tuple[re.Pattern[str], ...]
    unless: re.Pattern[str] | None


class KeywordJudge(Judge):
    """A list read as its file says.

    ``mode``: ``substring`` (an entry anywhere, or the whole text in ``equals``), ``prefix`` (the stripped text starts
    with an entry) or ``pattern`` (groups of regular expressions over the opening of the text).
    """

    def __init__(self, list_name: str) -> None:
        data = files("vlsafe.evaluation.judges.lists").joinpath(f"{list_name}.toml").read_bytes()
        rule = tomllib.loads(data.decode("utf-8"))
        self.name = f"keyword:{list_name}"
        self.version = f"{rule['version']}-{hashlib.sha256(data).hexdigest()[:12]}"
        self.origin: str = rule["origin"]
        self.mode: str = rule["mode"]
        self.lower: bool = rule["lower"]
        self.entries: tuple[str, ...] = tuple(rule.get("entries", ()))
        self.equals: tuple[str, ...] = tuple(rule.get("equals", ()))
        self.normalise: bool = rule.get("normalise", False)
        self.opening: int | None = rule.get("opening")
        self.groups = tuple(_group(group, rule["fragments"]) for group in rule.get("groups", ()))

    def label(self, response: Response, item: Item) -> tuple[Label, str]:
        return self.label_text(response.text)

    def label_text(self, text: str) -> tuple[Label, str]:
        """``(label, the phrase that decided)``; the phrase is empty for ``comply``."""
        text = normalised(text) if self.normalise else text
        text = text.lower() if self.lower else text
        if self.mode == "pattern":
            return self._by_pattern(text[: self.opening])
        if self.mode == "prefix":
            hit = next((entry for entry in self.entries if text.strip().startswith(entry)), "")
        else:
            hit = next((entry for entry in self.entries if entry in text), text if text in self.equals else "")
        return ("refuse", hit) if hit else ("comply", "")

    def _by_pattern(self, text: str) -> tuple[Label, str]:
        for group in self.groups:
            if group.unless is not None and group.unless.search(text):
                continue
            for pattern in group.patterns:
                if found := pattern.search(text):
                    return group.label, f"{group.name}: {found.group(0)}"
        return "comply", ""


def normalised(text: str) -> str:
    """Unicode compatibility forms composed, quotes straight, white space single: what looks the same is the same."""
    straight = unicodedata.normalize("NFKC", text.translate(_QUOTES)).translate(_QUOTES)
    return " ".join(straight.split())


def _group(group: dict[str, Any], fragments: dict[str, str]) -> Group:
    unless = re.compile(_filled(group["unless"], fragments)) if "unless" in group else None
    patterns = tuple(re.compile(_filled(pattern, fragments)) for pattern in group["patterns"])
    return Group(group["name"], group["label"], patterns, unless)


def _filled(pattern: str, fragments: dict[str, str]) -> str:
    for name, fragment in fragments.items():
        pattern = pattern.replace("{" + name + "}", fragment)
    return pattern
