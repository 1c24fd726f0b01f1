"""The tokenizer of a converted model: the original's, with a picture token and, where asked for, a padding token."""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken
from transformers import AutoTokenizer, LlamaConfig, PreTrainedTokenizerBase

from vlsafe.errors import DataError

_FILES = ("tokenizer.json", "tokenizer.model")


def tokenizer_of(*folders: Path | None) -> PreTrainedTokenizerBase:
    """The tokenizer of the first folder that has one. Raises DataError when none has, or it cannot be read."""
    folder = next((f for f in folders if f is not None and any((f / name).is_file() for name in _FILES)), None)
    if folder is None:
        looked = ", ".join(str(f) for f in folders if f is not None)
        raise DataError(f"{looked}: no tokenizer there ({' or '.join(_FILES)}); is the download whole?")
    try:
        return AutoTokenizer.from_pretrained(folder, config=LlamaConfig())  # of a folder whose model type is unknown
    except (ImportError, ValueError, OSError) as error:
        raise DataError(
            f"{folder}: its tokenizer cannot be read ({str(error).strip().splitlines()[0]}). A tokenizer.model alone "
            "needs a package: pip install sentencepiece; or put tokenizer.json of the same language model beside it"
        ) from error


def add_special(tokenizer: PreTrainedTokenizerBase, image: str, pad: str | None = None) -> None:
    """Add the picture token, then the padding token, in the order of Hugging Face's own converted checkpoints."""
    tokenizer.add_tokens([AddedToken(image, special=True, normalized=False)])
    if pad is not None:
        tokenizer.add_special_tokens({"pad_token": pad})
