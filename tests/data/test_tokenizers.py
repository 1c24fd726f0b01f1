"""Tokenizers that ship only a SentencePiece file: their ids are SentencePiece's own, or loading them is an error."""

from __future__ import annotations

import json
import random
import sysconfig
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor
from tiny import ask, composed
from transformers import LlamaTokenizer

from tests.data.sentencepiece_file import save_sentencepiece
from vlsafe.data import tokenizers
from vlsafe.data.encoding import Encoding
from vlsafe.data.tokenizers import COMPARED, differences, load_tokenizer
from vlsafe.errors import ConfigError, DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As Vicuna ships: tokenizer.model and tokenizer_config.json."""
    folder = save_sentencepiece(tmp_path / "vicuna")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", "legacy": True}))
    return folder


def test_runs_of_spaces_are_split_by_score_not_by_id(folder: Path) -> None:
    """SentencePiece joins "▁is" before "▁▁"; by their ids it would be the other way round."""
    tokenizer = load_tokenizer(folder)
    assert tokenizer.tokenize("a  is") == ["▁a", "▁", "▁is"]
    assert tokenizer.tokenize("a   b\nis") == ["▁a", "▁▁", "▁b", "<0x0A>", "is"]


def test_a_composed_model_reads_it(folder: Path) -> None:
    processor = composed(folder, template="vicuna_v1").processor
    assert processor.tokenizer.tokenize("a  is") == ["▁a", "▁", "▁is"]
    ids = Encoding(processor, "a").sample(ask("so?", "no")).input_ids
    assert "".join(processor.tokenizer.convert_ids_to_tokens(ids)) == "<s>▁a▁USER:▁so?▁ASSISTANT:▁no</s>"


def test_a_saved_one_keeps_the_ids(folder: Path, tmp_path: Path) -> None:
    load_tokenizer(folder).save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "tokenizer.json").is_file()
    pieces = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    assert list(differences(load_tokenizer(tmp_path / "saved"), pieces, COMPARED)) == []


def test_ids_that_differ_are_an_error_that_shows_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def by_id(pieces: SentencePieceProcessor, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
        return LlamaTokenizer.from_pretrained(folder)._merges

    monkeypatch.setattr(tokenizers, "merges_by_score", by_id)
    with pytest.raises(
        DataError, match=r"tokenizer\.model: transformers gives \d of 20 texts other ids .* 'What  is   "
    ):
        load_tokenizer(folder)


def test_a_file_that_transformers_reads_as_another_kind_is_an_error(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()  # without it transformers leaves out the mark before a text
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(DataError, match=r"transformers gives 1[89] of 20 texts other ids"):
        load_tokenizer(folder)


def test_without_the_package_one_line_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        load_tokenizer(folder)
    assert str(caught.value) == (
        f"{folder}: its tokenizer is a SentencePiece file alone (tokenizer.model), which needs a package to be read: "
        "pip install 'vlsafe[sentencepiece]'"
    )
    (folder / "tokenizer.json").write_text("{}")  # then the package is not needed
    assert tokenizers.sentencepiece_file(folder) is None


def texts() -> Iterator[str]:
    """9,000 texts, the same wherever Python is: lines of its own library, random characters, words in odd spacing."""
    library = Path(sysconfig.get_paths()["stdlib"])
    lines = (line for file in sorted(library.glob("*.py")) for line in file.read_text("utf-8").splitlines())
    yield from islice((f"- {line}" for line in lines if line.strip()), 3000)
    chance = random.Random(0)
    ranges = [
        (32, 127),
        (160, 600),
        (0x370, 0x600),
        (0x900, 0xA00),
        (0x3040, 0x30FF),
        (0x4E00, 0x9FFF),
        (0x1F300, 0x1F700),
    ]
    for _ in range(3000):
        first, last = chance.choice(ranges)
        yield "x" + "".join(chr(chance.randrange(first, last)) for _ in range(chance.randrange(60)))
    words = [
        "the",
        "a",
        "is",
        "in",
        "LLaVA",
        "USER:",
        "image,",
        "code()",
        "{x}",
        "3.14",
        "2026",
        "naïve",
        "你好",
        "# *",
        "<tag>",
    ]
    words += ["\n", "\t", "\n\n"]
    for _ in range(3000):
        chosen = chance.choices(words, k=chance.randrange(1, 30))
        yield "".join(word + " " * chance.choice([0, 1, 1, 1, 2, 3, 8]) for word in chosen)


@pytest.mark.slow
@pytest.mark.parametrize("legacy", [True, False])
def test_ids_of_9000_texts_are_those_of_sentencepiece(shared_data: Path, tmp_path: Path, legacy: bool) -> None:
    file = shared_data / "tokenizers" / "mistral_v1" / "tokenizer.model"
    (tmp_path / "tokenizer.model").symlink_to(file)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", "legacy": legacy}))
    pieces = SentencePieceProcessor(model_file=str(file))
    all_texts = list(texts())
    assert len(all_texts) == 9000
    differing = list(differences(load_tokenizer(tmp_path), pieces, all_texts))
    assert differing == [], (len(differing), differing[:3])
