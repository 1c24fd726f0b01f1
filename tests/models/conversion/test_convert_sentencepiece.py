"""An original LLaVA as it is published: its tokenizer is a SentencePiece file and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from originals import original_llava, write_llava
from sentencepiece import SentencePieceProcessor
from tiny import ask, talk
from transformers import AutoProcessor, LlavaForConditionalGeneration

from tests.data.sentencepiece_file import PIECES, save_sentencepiece
from vlsafe import PretrainedVLLM
from vlsafe.__main__ import main
from vlsafe.conversation import ImageRef, assistant, user
from vlsafe.data import tokenizers
from vlsafe.data.encoding import Encoding
from vlsafe.data.tokenizers import COMPARED, differences
from vlsafe.errors import DataError
from vlsafe.models.conversion.llava import convert_llava


@pytest.fixture
def original(llava: LlavaForConditionalGeneration, tmp_path: Path) -> Path:
    weights = original_llava(llava)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = torch.randn(PIECES, 16)
    folder = write_llava(tmp_path / "original", weights, vocab_size=PIECES)
    for file in folder.glob("token*"):
        file.unlink()
    save_sentencepiece(folder)
    return folder


def test_it_is_converted_with_sentencepieces_ids_and_llavas_spacing(
    original: Path, clip: Path, picture: ImageRef, tmp_path: Path
) -> None:
    convert_llava(original, tmp_path / "out", vision_tower=clip)
    tokenizer = AutoProcessor.from_pretrained(tmp_path / "out").tokenizer
    pieces = SentencePieceProcessor(model_file=str(original / "tokenizer.model"))
    assert pieces.vocab_size() == PIECES
    assert list(differences(tokenizer, pieces, COMPARED)) == []
    assert tokenizer.tokenize("a</s>b") == ["▁a", "</s>", "▁b"], "what its silence meant: legacy"
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    conversation = talk(user(picture, "red?"), assistant("a  is"), user("so?"), assistant("no"))
    for encoding in (Encoding(AutoProcessor.from_pretrained(tmp_path / "out")), _reloaded(tmp_path / "out")):
        shown = "".join(tokenizer.convert_ids_to_tokens(encoding.sample(conversation).input_ids)).replace("▁", "_")
        assert shown.endswith(
            "_USER:_" + "<image>" * 4 + "_<0x0A>red?_ASSISTANT:_a__is</s>_USER:_so?_ASSISTANT:_no</s>"
        )
        assert encoding.sample(ask("a", "b")).input_ids.tolist().count(tokenizer.bos_token_id) == 1


def _reloaded(folder: Path) -> Encoding:
    return Encoding(PretrainedVLLM(str(folder), template="vicuna_v1").processor)


def test_ids_that_differ_stop_it_before_anything_is_written(
    original: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizers, "merges_by_score", lambda pieces, vocabulary: [])
    with pytest.raises(DataError, match=r"tokenizer\.model: transformers gives \d+ of 20 texts other ids"):
        convert_llava(original, tmp_path / "out", vision_tower=clip)
    assert not (tmp_path / "out").exists()


def test_without_the_package_one_line_names_the_extra(
    original: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tokenizers.importlib.util, "find_spec", lambda name: None)
    assert main(["convert", str(original), str(tmp_path / "out"), "--vision-tower", str(clip)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert line.endswith("pip install 'vlsafe[sentencepiece]'")


def test_what_its_config_says_is_kept(original: Path, clip: Path, tmp_path: Path) -> None:
    (original / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", "legacy": False}))
    convert_llava(original, tmp_path / "out", vision_tower=clip)
    tokenizer = AutoProcessor.from_pretrained(tmp_path / "out").tokenizer
    assert tokenizer.tokenize("a</s>b") == ["▁a", "</s>", "b"]
