"""A guard's data file: the prompt, what is asked after it, and in which words the guard answers."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from vlsafe.data.chat import neutralise
from vlsafe.errors import ConfigError

_FOLDER = "vlsafe.evaluation.judges.guards"


@dataclass(frozen=True, slots=True)
class Question:
    """One answer of the guard: ``lead`` is forced, then the first token of a ``yes`` or a ``no`` word follows."""

    about: Literal["request", "refusal", "harmful"]
    lead: str
    yes: list[str]
    no: list[str]


@dataclass(frozen=True, slots=True)
class Categories:
    """After a ``yes`` to ``harmful``: ``lead``, and then one of the keys of ``names``."""

    lead: str
    names: dict[str, str]


@dataclass(frozen=True, slots=True)
class GuardTemplate:
    """``prompt`` holds ``{instruction}`` and ``{answer}``; without one, the checkpoint's chat template is used, whose
    messages hold ``content`` as text or as a list of parts. ``markers`` are what opens a turn in ``prompt`` and is no
    special token: broken in what is judged, as special tokens are. A prompt longer than ``max_tokens`` loses the end of
    the answer."""

    version: str
    origin: str
    max_tokens: int
    questions: list[Question]
    prompt: str = ""
    content: Literal["text", "parts"] = "text"
    markers: list[str] = field(default_factory=list)
    categories: Categories | None = None

    def render(self, tokenizer: PreTrainedTokenizerBase, instruction: str, answer: str) -> str:
        """The prompt as text. Nothing in ``instruction`` or ``answer`` can open a turn, nor claim the other's place."""
        special = sorted({*tokenizer.all_special_tokens, *_added(tokenizer), *self.markers}, key=len, reverse=True)
        parts = {"instruction": neutralise(instruction, special), "answer": neutralise(answer, special)}
        if self.prompt:
            return re.sub(r"\{(instruction|answer)\}", lambda found: parts[found.group(1)], self.prompt)
        messages = [
            {"role": role, "content": text if self.content == "text" else [{"type": "text", "text": text}]}
            for role, text in (("user", parts["instruction"]), ("assistant", parts["answer"]))
        ]
        return str(tokenizer.apply_chat_template(messages, tokenize=False))


def guard_template(name: str) -> GuardTemplate:
    """Raises ConfigError, listing the valid names, for an unknown one."""
    known = guard_names()
    if name not in known:
        raise ConfigError(f"unknown guard {name!r}; valid names: {', '.join(known)}, written guard:{known[0]}:MODEL")
    data = files(_FOLDER).joinpath(f"{name}.toml").read_bytes()
    row: dict[str, Any] = tomllib.loads(data.decode("utf-8"))
    row["version"] = f"{row['version']}-{hashlib.sha256(data).hexdigest()[:12]}"
    row["questions"] = [Question(**each) for each in row["questions"]]
    if "categories" in row:
        row["categories"] = Categories(**row["categories"])
    return GuardTemplate(**row)


def guard_names() -> list[str]:
    return sorted(file.name.removesuffix(".toml") for file in files(_FOLDER).iterdir() if file.name.endswith(".toml"))


def first_tokens(tokenizer: PreTrainedTokenizerBase, before: str, words: Sequence[str]) -> list[int]:
    """The token with which each word begins right after ``before``; several spellings may share one.

    Raises ConfigError where the tokenizer joins the end of ``before`` with a word, so that no token begins it.
    """
    stem = tokenizer(before, add_special_tokens=False).input_ids
    found: dict[int, None] = {}
    for word in words:
        whole = tokenizer(before + word, add_special_tokens=False).input_ids
        if whole[: len(stem)] != stem or len(whole) == len(stem):
            raise ConfigError(
                f"the tokenizer joins {before[-10:]!r} and {word!r}; this guard cannot be asked by tokens"
            )
        found[whole[len(stem)]] = None
    return list(found)


def _added(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    return [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
