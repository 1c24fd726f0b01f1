"""Tokenizers that ship as a SentencePiece file alone, as Vicuna's and original LLaVA's: loaded with its own ids.

transformers turns such a file into a fast tokenizer and ranks the merges of its pieces by their ids. SentencePiece does
so by their scores, and in Llama's vocabulary the two differ for runs of white space: of ``a  b`` SentencePiece makes
``_a _ _b``, transformers ``_a __ b``. So the merges are made again here, and the ids compared before they are used.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers.models import BPE
from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerBase
from transformers.utils import cached_file

from vlsafe.errors import ConfigError, DataError

COMPARED = (
    "Hello there, how are you?",
    "What  is   this?    Four spaces.",
    "\nWhat is shown in the picture?",
    "A list:\n- one\n- two\n\n\nand an end. ",
    "def f(x):\n    if x:\n\treturn x  # comment\n        pass\n",
    "tabs\tand\t\tmore, \r\nand a carriage return",
    "1234567890 3.14159 -12e-7 1,000,000 2026-11-28",
    "USER: hi ASSISTANT: yes",
    "It's \"quoted\" (in brackets) [or these] {and these} <tag attr='x'/> & more; done!",
    "https://example.org/a_b/c-d?e=f&g=%20#h user@example.org C:\\path\\file.txt",
    "Größe, café, naïve, œuvre, ﬁ, İstanbul, Straße, Ελληνικά, русский язык, العربية, עברית, हिन्दी",
    "你好，世界。日本語のテキスト、한국어 문장입니다. 　全角の空白",
    "emoji 😀👩‍👩‍👧‍👦🇩🇪 and symbols ∑∫≤≠→★♥ ½ ² µ €",
    "decomposed e\u0301 a\u0308, zero width \u200b here, soft\u00adhyphen, no\u00a0break, \u2028 line",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa Donaudampfschifffahrtsgesellschaftskapitän antidisestablishmentarianism",
    "CamelCase snake_case kebab-case SHOUTING mIxEd x",
    "$\\frac{a}{b} = \\sum_{i=0}^{n} x_i^2$ and `code` and **bold** and | a | b |",
    "\x00\x01\x7f control characters",
    "x",
    "",
)
"""Texts whose ids are compared. None begins with a space: there transformers' Llama adds no mark, SentencePiece one."""


def load_tokenizer(path: str | Path, **options: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub name, as AutoTokenizer's ``from_pretrained`` takes ``options``.

    Raises ConfigError where a SentencePiece file needs a package that is missing, DataError where its ids differ.
    """
    file = sentencepiece_file(path, options.get("revision"))
    tokenizer = AutoTokenizer.from_pretrained(path, **options)
    if file is not None:
        follow_sentencepiece(tokenizer, file)
    return tokenizer


def sentencepiece_file(path: str | Path, revision: str | None = None) -> Path | None:
    """The ``tokenizer.model`` of a folder or hub name that has no ``tokenizer.json``.

    Raises ConfigError when there is one, and the package that reads it is missing.
    """
    if _file(path, "tokenizer.json", revision) is not None:
        return None
    file = _file(path, "tokenizer.model", revision)
    if file is not None and importlib.util.find_spec("sentencepiece") is None:
        raise ConfigError(
            f"{path}: its tokenizer is a SentencePiece file alone (tokenizer.model), which needs a package to be read: "
            "pip install 'vlsafe[sentencepiece]'"
        )
    return file


def follow_sentencepiece(tokenizer: PreTrainedTokenizerBase, file: Path) -> None:
    """Give a tokenizer that was read from ``file`` the ids that SentencePiece gives, in place.

    Raises DataError with the first texts whose ids differ.
    """
    from sentencepiece import SentencePieceProcessor

    pieces = SentencePieceProcessor(model_file=str(file))
    if isinstance(tokenizer, LlamaTokenizer):
        vocabulary = {pieces.id_to_piece(i): i for i in range(pieces.vocab_size())}
        merges = merges_by_score(pieces, vocabulary)
        tokenizer.backend_tokenizer.model = BPE(vocabulary, merges, fuse_unk=True, byte_fallback=True)
    differing = list(differences(tokenizer, pieces, COMPARED))
    if differing:
        shown = [f"{text!r}: {ids} instead of {wanted}" for text, ids, wanted in differing[:3]]
        raise DataError(
            f"{file}: transformers gives {len(differing)} of {len(COMPARED)} texts other ids than SentencePiece, with "
            f"which the model was trained: {'; '.join(shown)}. Put the tokenizer.json of the same model beside it"
        )


def merges_by_score(pieces: Any, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """The pairs of pieces that join to a third, the joined piece of the highest score first.

    Of equal scores, those of runs of spaces, SentencePiece takes the leftmost pair, so a run grows from its left end:
    the longer left piece goes first.
    """
    joined = [
        (-pieces.get_score(i), -cut, vocabulary[piece[:cut]], vocabulary[piece[cut:]])
        for piece, i in vocabulary.items()
        if not (pieces.is_control(i) or pieces.is_unknown(i) or pieces.is_byte(i))
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    return [(pieces.id_to_piece(left), pieces.id_to_piece(right)) for _, _, left, right in sorted(joined)]


def differences(
    tokenizer: PreTrainedTokenizerBase, pieces: Any, texts: Iterable[str]
) -> Iterable[tuple[str, list[int], list[int]]]:
    """Texts to which the tokenizer gives other ids than SentencePiece, with both."""
    for text in texts:
        ids, wanted = list(tokenizer(text, add_special_tokens=False)["input_ids"]), pieces.encode(text)
        if ids != wanted:
            yield text, ids, wanted


def _file(path: str | Path, name: str, revision: str | None) -> Path | None:
    try:
        found = cached_file(str(path), name, revision=revision)
    except OSError:  # no such file, or no way to it; then loading says what is wrong
        return None
    return Path(found) if found else None
