"""Weights of which each process reads its own rows: what cannot be read so, what is made anew, how much memory it is.

That every family's weights are right is in tests/models/families/test_pieces.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from family_llava import FAMILY as LLAVA
from family_llava import write as llava
from fitting import FROZEN, FULL, LORA, POSTHOC, data, files, tensors, trainer
from making import CLIP, ids_of, language, strong
from processes import saved, together
from runs import SeededCheckpoint, strategy
from safetensors.torch import load_file, save_file
from transformers import LlavaConfig, LlavaForConditionalGeneration, PreTrainedModel

from tests.torchrun import ROOT
from vlsafe import PretrainedVLLM, SafetyFineTuning
from vlsafe.errors import DataError
from vlsafe.models.backbones.pieces import Later, read_in_pieces
from vlsafe.models.components import Components
from vlsafe.strategies.filling import StandIn
from vlsafe.strategies.shards import whole


def written(folder: Path, model: PreTrainedModel | None = None) -> Path:
    made = llava(folder)
    strong(model or made).save_pretrained(folder)
    return folder


def opened(folder: Path) -> tuple[PreTrainedModel, Later]:
    with read_in_pieces() as later:
        return PretrainedVLLM(str(folder), attention="sdpa", dtype="float32", **LLAVA.options).load_model(), later


def test_weights_of_another_shape_name_tensor_and_file(tmp_path: Path) -> None:
    weights = load_file(written(tmp_path) / "model.safetensors")
    words = next(name for name in weights if name.endswith("embed_tokens.weight"))
    save_file(weights | {words: weights[words][1:].contiguous()}, tmp_path / "model.safetensors", {"format": "pt"})
    _, later = opened(tmp_path)
    assert later.pieces is not None
    with pytest.raises(DataError, match=r"embed_tokens\.weight of .*model\.safetensors has the shape \[\d+, 16\]"):
        later.pieces.rows("model.language_model.embed_tokens.weight", 0, 2)


@pytest.mark.parametrize("left_out", ["multi_modal_projector.linear_1.bias", "embed_tokens"])
def test_what_the_files_do_not_hold_makes_it_read_as_ever(left_out: str, tmp_path: Path) -> None:
    weights = load_file(written(tmp_path) / "model.safetensors")
    left = {name: tensor for name, tensor in weights.items() if left_out not in name}
    assert len(left) == len(weights) - 1
    save_file(left, tmp_path / "model.safetensors", {"format": "pt"})
    model, later = opened(tmp_path)
    assert later.pieces is None and not any(isinstance(parameter, StandIn) for parameter in model.parameters())


def test_the_index_says_which_files_are_the_models(tmp_path: Path) -> None:
    model = LlavaForConditionalGeneration.from_pretrained(written(tmp_path))
    (tmp_path / "model.safetensors").rename(tmp_path / "other.safetensors")  # a second copy
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    _, later = opened(tmp_path)
    assert later.pieces is not None
    assert torch.equal(later.pieces.rows("lm_head.weight", 2, 4), model.lm_head.weight[2:4])
    next(tmp_path.glob("model-00002-*")).unlink()
    with pytest.raises(DataError, match=r"index\.json names model-00002-.*, not there"):
        opened(tmp_path)


def test_tensors_that_are_made_of_several_in_the_files(tmp_path: Path) -> None:
    """A mixture of experts: a tensor for each expert on disk, one for all of them in the model."""
    size = llava(tmp_path).config.text_config.vocab_size
    text = language(tmp_path, size, "mixtral", num_local_experts=3, num_experts_per_tok=2)
    config = LlavaConfig(vision_config=CLIP, text_config=text, image_token_id=ids_of(tmp_path, "<image>")[0])
    written(tmp_path, LlavaForConditionalGeneration(config))
    assert any("experts.2." in name for name in load_file(tmp_path / "model.safetensors"))
    plain = PretrainedVLLM(str(tmp_path), attention="sdpa", dtype="float32").load_model()
    _, later = opened(tmp_path)
    assert later.pieces is not None and later.pieces.names == dict(plain.named_parameters()).keys()
    for name, parameter in plain.named_parameters():
        assert torch.equal(later.pieces.rows(name, 1, 3), parameter[1:3]), name


TABLES = {
    "mixed": POSTHOC,
    "full beside adapters": Components(LORA, FROZEN, FULL),
    "full": Components(FULL, FULL, FULL),
}


def before_training(folder: Path, name: str, table: str, world: int) -> dict[str, Any]:
    """Every weight when training starts."""
    backbone = SeededCheckpoint(str(folder), attention="sdpa", dtype="float32", **LLAVA.options)
    tuned = SafetyFineTuning(backbone, TABLES[table], warmup_ratio=0.0)
    made = trainer(folder, devices=world, strategy=strategy(name), max_steps=0)
    made.fit(tuned, datamodule=data(folder, batch_size=1))
    return {name: whole(tensor) for name, tensor in tensors(tuned).items()}


def each_of_two(folder: Path, table: str) -> None:
    weights = before_training(folder, "fsdp2", table, world=2)
    torch.save(weights, folder / f"{torch.distributed.get_rank()}.pt")


@pytest.mark.parametrize("table", ["mixed", *(pytest.param(name, marks=pytest.mark.slow) for name in list(TABLES)[1:])])
def test_weights_and_new_adapters_are_those_of_one_process(table: str, tmp_path: Path) -> None:
    files(written(tmp_path))
    alone = before_training(tmp_path, "single", table, world=1)
    together(2, each_of_two, tmp_path, table)
    for rank in (0, 1):
        found = saved(tmp_path / f"{rank}.pt")
        assert found.keys() == alone.keys()
        for name, tensor in alone.items():
            assert torch.equal(found[name], tensor), name


@pytest.mark.slow
def test_no_process_holds_the_whole_model(tmp_path: Path) -> None:
    """Two processes train one step of adapters on a model of 300 MB; what each held at most, from the imports on."""
    program = [str(Path(__file__).with_name("peak_memory.py")), str(tmp_path)]
    path = os.pathsep.join(str(folder) for folder in (ROOT, ROOT / "tests", ROOT / "tests" / "models"))
    # large blocks go back to the system when they are freed, so that what the process holds is what is alive
    environment = os.environ | {"PYTHONPATH": path, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}

    def ran(world: int, *more: str) -> list[dict[str, int]]:
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)] if world else []
        done = subprocess.run(
            [sys.executable, *start, *program, *more], env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    ran(0, "write")
    for rank in ran(2, "pieces"):
        assert rank["loaded"] < 0.65 * rank["model"] and rank["trained"] < 0.9 * rank["model"], rank
    for rank in ran(2, "whole"):
        assert rank["loaded"] > 0.9 * rank["model"], rank  # the measure sees a model that is read whole
