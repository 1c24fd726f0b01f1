"""What the tiny checkpoints of all families share: a tokenizer of one id a character, and goldens written by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tiny import CHARACTERS
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

PICTURE = "§"
"""Stands in a golden for what a picture of 16 x 16 pixels is expanded to."""

SIGLIP = dict(
    model_type="siglip_vision_model", hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    image_size=16, patch_size=8,
)  # fmt: skip
CLIP = SIGLIP | dict(model_type="clip_vision_model", num_hidden_layers=3, projection_dim=16)


@dataclass(frozen=True)
class Family:
    """One family: how its checkpoint is made, and what must come of it, written by hand.

    ``write`` puts tokenizer, picture processor and chat template into a folder as the hub holds them, and returns a
    model with random weights. ``golden`` names the texts of the conversations in :data:`CONVERSATIONS`, supervised
    parts between ``[[`` and ``]]``, pictures as :data:`PICTURE`. ``parts`` are prefixes of parameter names.
    ``unread``: a pattern for those on which no picture feature depends.
    """

    name: str
    write: Callable[[Path], PreTrainedModel]
    picture: str
    golden: dict[str, str]
    parts: dict[str, list[str]]
    unread: str = r"(?!)"
    options: dict[str, Any] = field(default_factory=dict)
    eos: str = "<eos>"


def tokenizer(folder: Path, *special: str, named: dict[str, str] | None = None, **roles: str) -> int:
    """Writes a tokenizer whose special tokens and characters are one id each, and returns its size."""
    listed = list(dict.fromkeys(["<pad>", "<unk>", *special, *roles.values(), *(named or {}).values()]))
    vocabulary = {token: number for number, token in enumerate([*listed, *CHARACTERS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made,
        **{"pad_token": "<pad>", "unk_token": "<unk>"} | roles,
        **({"extra_special_tokens": named} if named else {}),
    )
    fast.add_tokens([AddedToken(token, special=True) for token in listed])
    fast.save_pretrained(folder)
    return len(fast)


def ids_of(folder: Path, *tokens: str) -> list[int]:
    """Ids of special tokens in a tokenizer that :func:`tokenizer` wrote."""
    return [Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(token) for token in tokens]


def template(folder: Path, text: str) -> None:
    (folder / "chat_template.jinja").write_text(text, encoding="utf-8")


def language(folder: Path, size: int, model_type: str = "llama", **changed: Any) -> dict[str, Any]:
    """Config of a language model with two layers."""
    fields = dict(
        model_type=model_type, vocab_size=size, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=512, pad_token_id=0,
    )  # fmt: skip
    return fields | changed


def strong(model: PreTrainedModel) -> PreTrainedModel:
    """Random weights large enough that every token and every picture matters to every answer."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.normal_(0.0, 0.25, generator=generator)
    return model.eval()


def golden(family: Family, case: str, vocabulary: dict[str, int]) -> tuple[list[int], list[int]]:
    """Ids and labels of a golden text: a special token is one id, and so is every other character."""
    special = sorted((token for token in vocabulary if len(token) > 1), key=len, reverse=True)
    pattern = "|".join([r"\[\[", r"\]\]", *map(re.escape, special), r"[\s\S]"])
    ids: list[int] = []
    labels: list[int] = []
    supervised = False
    for piece in re.findall(pattern, family.golden[case].replace(PICTURE, family.picture)):
        if piece in ("[[", "]]"):
            supervised = piece == "[["
            continue
        ids.append(vocabulary[piece])
        labels.append(vocabulary[piece] if supervised else -100)
    return ids, labels
