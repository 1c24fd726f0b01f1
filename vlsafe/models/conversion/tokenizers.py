"""The tokenizer of a converted model: the original's, with a picture token and, where asked for, a padding token."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken
from transformers import AutoTokenizer, LlamaConfig, LlamaTokenizer, PreTrainedTokenizerBase

from vlsafe.data.processors import keep_spacing
from vlsafe.data.tokenizers import follow_sentencepiece, sentencepiece_file
from vlsafe.errors import DataError

_FILES = ("tokenizer.json", "tokenizer.model")


def tokenizer_of(*folders: Path | None) -> PreTrainedTokenizerBase:
    """The tokenizer of the first folder that has one.

    Raises DataError when none has, it cannot be read, or its ids are not those of its SentencePiece file; ConfigError
    when such a file needs a package that is missing.
    """
    folder = next((f for f in folders if f is not None and any((f / name).is_file() for name in _FILES)), None)
    if folder is None:
        looked = ", ".join(str(f) for f in folders if f is not None)
        raise DataError(f"{looked}: no tokenizer there ({' or '.join(_FILES)}); is the download whole?")
    try:
        tokenizer = _loaded(folder)
    except (ImportError, ValueError, OSError) as error:
        raise DataError(f"{folder}: its tokenizer cannot be read ({str(error).strip().splitlines()[0]})") from error
    keep_spacing(tokenizer)
    return tokenizer


def _loaded(folder: Path) -> PreTrainedTokenizerBase:
    file = sentencepiece_file(folder)
    if file is None:
        return AutoTokenizer.from_pretrained(folder, config=LlamaConfig())  # of a folder whose model type is unknown
    config = folder / "tokenizer_config.json"
    said = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    # What such a folder leaves out meant this to the transformers of its training; today's takes the opposite.
    meant = {"legacy": True, "add_bos_token": True}
    tokenizer = LlamaTokenizer.from_pretrained(folder, **{key: said.get(key, value) for key, value in meant.items()})
    follow_sentencepiece(tokenizer, file)
    return tokenizer


def add_special(tokenizer: PreTrainedTokenizerBase, image: str, pad: str | None = None) -> None:
    """Add the picture token, then the padding token, in the order of Hugging Face's own converted checkpoints."""
    tokenizer.add_tokens([AddedToken(image, special=True, normalized=False)])
    if pad is not None:
        tokenizer.add_special_tokens({"pad_token": pad})
