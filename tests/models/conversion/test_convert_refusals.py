"""What does not fit is told at once, and leaves nothing behind; memory stays at one shard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from originals import GROWN, ROWS, original_llava, write_llava
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForImageTextToText, LlavaForConditionalGeneration

from vlsafe.errors import ConfigError, DataError, VlsafeError
from vlsafe.models.conversion import plan, shards
from vlsafe.models.conversion.llava import convert_llava


def test_every_key_that_does_not_fit_is_in_one_error(
    llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path
) -> None:
    weights = original_llava(llava)
    del weights["model.layers.1.mlp.up_proj.weight"]
    weights["model.layers.0.self_attn.k_proj.weight"] = torch.zeros(16, 8)
    weights["model.image_newline"] = torch.zeros(16)
    weights["model.embed_tokens.weight"] = torch.zeros(ROWS + 1, 16)
    source = write_llava(tmp_path / "original", weights)
    with pytest.raises(DataError) as caught:
        convert_llava(source, tmp_path / "out", vision_tower=clip)
    words = str(caught.value)
    assert f"{source} is no complete LLaVA checkpoint: 4 problems:" in words
    assert "missing: nothing gives language_model.model.layers.1.mlp.up_proj.weight [32, 16]" in words
    assert re.search(r"shape: model.layers.0.self_attn.k_proj.weight in pytorch_model-\S+ gives \[16, 8\]", words)
    assert re.search(r"unexpected: pytorch_model-\S+ holds model.image_newline, which the model does not have", words)
    assert f"gives [{GROWN + 1}, 16], the config asks for [{GROWN}, 16]" in words
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_a_missing_encoder_is_named(llava: LlavaForConditionalGeneration, tmp_path: Path) -> None:
    weights = {k: v for k, v in original_llava(llava).items() if "vision_tower" not in k}
    source = write_llava(tmp_path / "original", weights)
    with pytest.raises(
        DataError, match=r"get openai/clip-vit-large-patch14-336 and name its folder with --vision-tower"
    ):
        convert_llava(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"architectures": ["LlavaForConditionalGeneration"]}, "this is Hugging Face layout already"),
        ({"model_type": "llava_mpt"}, "model_type 'llava_mpt' with an mm_vision_tower is no LLaVA-1.5"),
        ({"mm_projector_type": "mlp3x_gelu"}, "mm_projector_type is 'mlp3x_gelu'; what can be converted is 'linear', "),
        ({"image_aspect_ratio": "anyres"}, "image_aspect_ratio is 'anyres'; what can be converted is 'pad', 'square'"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end is True; what can be converted is False"),
        ({"mm_vision_select_layer": None}, "mm_vision_select_layer is None, must be a number such as -2"),
    ],
    ids=["huggingface", "other language model", "projector", "anyres", "start-end tokens", "layer"],
)
def test_other_layouts_are_refused(
    changed: dict[str, Any], words: str, llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path
) -> None:
    source = write_llava(tmp_path / "original", {"x": torch.zeros(1)}, pieces=1, **changed)
    with pytest.raises(DataError, match=re.escape(words)):
        convert_llava(source, tmp_path / "out", vision_tower=clip)


def test_files_that_are_not_whole_or_not_weights_are_named(
    llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path
) -> None:
    source = write_llava(tmp_path / "original", original_llava(llava))
    second = source / "pytorch_model-00002-of-00002.bin"

    def refused(match: str) -> None:
        with pytest.raises(DataError, match=match):
            convert_llava(source, tmp_path / "out", vision_tower=clip)

    content = second.read_bytes()
    second.write_bytes(content[: len(content) // 2])
    refused(r"pytorch_model-00002-of-00002.bin: .*is the download whole\?|holds more than tensors")
    torch.save({"x": Path("of no use")}, second)
    refused(r"00002-of-00002.bin: holds more than tensors, which could run code when loaded; it is not read")
    torch.save([1, 2], second)
    refused(r"00002.bin: holds list, not weights by name")
    torch.save({"x": "words"}, second)
    refused(r"'x' is no tensor; is this a file of weights\?")
    second.unlink()
    refused(r"index.json: lists pytorch_model-00002-of-00002.bin, not there; download the rest")
    for file in source.glob("pytorch_model*"):
        file.unlink()
    refused(r"holds neither model.safetensors nor pytorch_model.bin, nor an index of several")
    (source / "model.safetensors").write_bytes(b"no header")
    refused(r"model.safetensors: cannot be read")
    for file in source.glob("token*"):
        file.unlink()
    refused(r"original: no tokenizer there \(tokenizer.json or tokenizer.model\)")


def test_one_file_is_open_at_a_time_and_one_shard_in_memory(
    llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_llava(tmp_path / "original", original_llava(llava), pieces=3, safe=True)
    open_now, seen, held = [], [], []
    opened, add = shards.opened, shards.ShardWriter.add

    @contextmanager
    def counting(file: Path) -> Iterator[Any]:
        with opened(file) as tensors:
            open_now.append(file)
            seen.append(len(open_now))
            yield tensors
            open_now.remove(file)

    def adding(self: shards.ShardWriter, name: str, tensor: Tensor) -> None:
        add(self, name, tensor)
        held.append(sum(t.nbytes for t in self._pending.values()))

    limit = 13_000
    monkeypatch.setattr(shards, "SHARD_BYTES", limit)
    monkeypatch.setattr(shards, "opened", counting)
    monkeypatch.setattr(shards.ShardWriter, "add", adding)
    convert_llava(source, tmp_path / "out", vision_tower=clip)
    assert seen == [1, 1, 1]  # the CLIP folder gives nothing here, so it is not opened
    assert max(held) <= limit
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    files = set(index["weight_map"].values())
    assert len(files) > 3
    total = 0
    for file in files:
        with safe_open(tmp_path / "out" / file, "pt") as tensors:
            names = list(tensors.keys())
            assert {index["weight_map"][name] for name in names} == {file}
            total += sum(tensors.get_tensor(name).nbytes for name in names)
    assert index["metadata"]["total_size"] == total
    assert not AutoModelForImageTextToText.from_pretrained(tmp_path / "out", output_loading_info=True)[1][
        "missing_keys"
    ]


def test_nothing_is_left_of_a_conversion_that_fails(
    llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_llava(tmp_path / "original", original_llava(llava))
    before = sorted(path.name for path in tmp_path.iterdir())

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shards, "save_file", full)
        with pytest.raises(VlsafeError, match=r"nothing of it is left; free some space and run the same command again"):
            convert_llava(source, tmp_path / "out", vision_tower=clip)
    with monkeypatch.context() as patch:
        patch.setattr(plan.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
        with pytest.raises(VlsafeError, match=r"GiB are needed there, 0.0 are free"):
            convert_llava(source, tmp_path / "out", vision_tower=clip)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    with pytest.raises(ConfigError, match=r"out exists already; name a folder that does not"):
        convert_llava(source, tmp_path / "out", vision_tower=clip)
    assert (tmp_path / "out" / "mine").read_text() == "kept"
