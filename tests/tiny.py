"""A VLLM small enough for tests, built without any download, and data that fits it."""

from __future__ import annotations

import json
import re
import string
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vlsafe import ComposedVLLM
from vlsafe.conversation import Conversation, ImageRef, Turn, assistant, user

SPECIAL = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<unk>"]
CHARACTERS = [*string.printable[:95], "\n"]
IMAGE_ID = len(SPECIAL) + len(CHARACTERS)
"""Id that the picture placeholder gets: the first one after the tokenizer's own."""

VISION: dict[str, dict[str, Any]] = {
    "clip": dict(hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2),
    "siglip": dict(hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2),
    "dinov2": dict(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, mlp_ratio=2),
    "efficientnet_lite0": dict(image_size=64),
}
VISION |= {"siglip2": VISION["siglip"], "eva02": VISION["clip"], "dinov2_registers": VISION["dinov2"]}
for _name in VISION.keys() - {"efficientnet_lite0"}:
    VISION[_name] = VISION[_name] | dict(image_size=16, patch_size=8)
PATCHES = 4
"""Placeholders of a picture, the same for every tiny encoder."""


def save_tokenizer(folder: Path, **special: str) -> Path:
    """One id a character, so that ids and labels can be written by hand."""
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    names = dict(bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>") | special
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        **{name: token for name, token in names.items() if token},
    )
    fast.save_pretrained(folder)
    return folder


def language_model(tokenizer: Path, **changed: Any) -> dict[str, Any]:
    """Fields of a random Llama with two layers."""
    fields = dict(
        model_type="llama",
        vocab_size=IMAGE_ID,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return fields | changed | {"tokenizer": str(tokenizer)}


def composed(
    tokenizer: Path, encoder: str = "clip", language: dict[str, Any] | None = None, **options: Any
) -> ComposedVLLM:
    """A ComposedVLLM of random parts."""
    return ComposedVLLM(
        encoder,
        language or language_model(tokenizer),
        vision_weights=VISION[encoder],
        attention=options.pop("attention", "sdpa"),
        **options,
    )


def seeded_model(backbone: Any, seed: int = 0) -> Any:
    """The backbone's model with weights that depend on the seed alone, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return backbone.load_model().eval()


def draw(folder: Path, name: str = "red.png", colour: str = "red", size: tuple[int, int] = (16, 16)) -> ImageRef:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(folder / name)
    return ImageRef(folder, name)


def talk(*turns: Turn, identity: str = "r1", source: str = "file.json") -> Conversation:
    return Conversation(identity, source, turns)


def ask(question: str, answer: str, *pictures: ImageRef, identity: str = "r1") -> Conversation:
    return talk(user(*pictures, question), assistant(answer), identity=identity)


def alpaca_file(path: Path, rows: int, answer: str = "a" * 3) -> Path:
    """Text-only records with answers of different lengths."""
    path.write_text(
        json.dumps(
            [{"instruction": f"say {i}", "input": "", "output": answer + str(i) * (i % 4 + 1)} for i in range(rows)]
        )
    )
    return path


def llava_file(path: Path, rows: int) -> Path:
    """Records with a small picture each, whose answer is its colour."""
    colours = ["red", "green", "blue", "white", "black"]
    records = []
    for i in range(rows):
        draw(path.parent / "pictures", f"{i}.png", colours[i % 5], (8 + i, 8))
        turns = [
            {"from": "human", "value": "<image>\ncolour?"},
            {"from": "gpt", "value": colours[i % 5]},
        ]
        records.append({"id": f"p{i}", "image": f"pictures/{i}.png", "conversations": turns})
    path.write_text(json.dumps(records))
    return path


def golden(marked: str) -> tuple[list[int], list[int]]:
    """Ids and labels as written by hand: what stands between ``[[`` and ``]]`` is supervised, a picture is ``<image>``
    once, every special token is one id and every other character is one."""
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *CHARACTERS])}
    ids, labels, supervised = [], [], False
    for piece in re.findall(r"\[\[|\]\]|<image>|<\|im_start\|>|<\|im_end\|>|</?s>|[\s\S]", marked):
        if piece in ("[[", "]]"):
            supervised = piece == "[["
            continue
        found = [IMAGE_ID] * PATCHES if piece == "<image>" else [vocabulary[piece]]
        ids += found
        labels += found if supervised else [-100] * len(found)
    return ids, labels
