"""Weights of which each process reads its own rows: what cannot be read so, what is made anew, how much memory it is.

That every family's weights are right is in tests/models/families/test_pieces.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from family_llava import FAMILY as LLAVA
from family_llava import write as llava
from fitting import FROZEN, FULL, LORA, POSTHOC, data, files, tensors, trainer
from making import CLIP, ids_of, language, strong
from processes import saved, together
from safetensors.torch import load_file, save_file
from short_run import SeededCheckpoint, strategy
from tiny import VISION, language_model, save_tokenizer
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, LlavaConfig, LlavaForConditionalGeneration, PreTrainedModel

from tests.torchrun import ROOT
from vlsafe import Backbone, ComposedVLLM, PretrainedVLLM, SafetyFineTuning, SwappedVLLM
from vlsafe.errors import DataError
from vlsafe.models.backbones.pieces import read_in_pieces
from vlsafe.models.components import Components
from vlsafe.strategies.filling import StandIn
from vlsafe.strategies.shards import whole


def written(folder: Path, model: PreTrainedModel | None = None) -> Path:
    made = llava(folder)
    strong(model or made).save_pretrained(folder)
    return folder


def opened(folder: Path) -> dict[str, nn.Parameter]:
    """Its parameters; of those that are left in their files, stand-ins."""
    with read_in_pieces():
        model = PretrainedVLLM(str(folder), attention="sdpa", dtype="float32", **LLAVA.options).load_model()
    return dict(model.named_parameters())


def test_weights_of_another_shape_name_tensor_and_file(tmp_path: Path) -> None:
    weights = load_file(written(tmp_path) / "model.safetensors")
    words = next(name for name in weights if name.endswith("embed_tokens.weight"))
    save_file(weights | {words: weights[words][1:].contiguous()}, tmp_path / "model.safetensors", {"format": "pt"})
    found = opened(tmp_path)["model.language_model.embed_tokens.weight"]
    with pytest.raises(DataError, match=r"embed_tokens\.weight of .*model\.safetensors has the shape \[\d+, 16\]"):
        found.read(0, 2)


@pytest.mark.parametrize("left_out", ["multi_modal_projector.linear_1.bias", "embed_tokens"])
def test_what_the_files_do_not_hold_makes_it_read_as_ever(left_out: str, tmp_path: Path) -> None:
    weights = load_file(written(tmp_path) / "model.safetensors")
    left = {name: tensor for name, tensor in weights.items() if left_out not in name}
    assert len(left) == len(weights) - 1
    save_file(left, tmp_path / "model.safetensors", {"format": "pt"})
    assert not any(isinstance(parameter, StandIn) for parameter in opened(tmp_path).values())


def test_the_index_says_which_files_are_the_models(tmp_path: Path) -> None:
    model = LlavaForConditionalGeneration.from_pretrained(written(tmp_path))
    (tmp_path / "model.safetensors").rename(tmp_path / "other.safetensors")  # a second copy
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert torch.equal(opened(tmp_path)["lm_head.weight"].read(2, 4), model.lm_head.weight[2:4])
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
    found = opened(tmp_path)
    assert found.keys() == dict(plain.named_parameters()).keys()
    for name, parameter in plain.named_parameters():
        assert torch.equal(found[name].read(1, 3), parameter[1:3]), name


def test_a_composed_model_leaves_its_language_model_in_its_files(tmp_path: Path) -> None:
    """All but words, of which there is one more than the files have: their rows are made at once."""
    backbone = composed(tmp_path)
    with read_in_pieces():
        model = backbone.load_model()
    left = {name for name, parameter in model.named_parameters() if isinstance(parameter, StandIn)}
    language = {name for name, _ in model.named_parameters() if name.startswith("model.language_model.")}
    assert left == language - {"model.language_model.embed_tokens.weight"} and len(left) > 9
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    found, plain = dict(model.named_parameters()), dict(backbone.load_model().named_parameters())
    for name in left:
        assert found[name].read(1, 3).dtype == torch.bfloat16 and torch.equal(found[name].read(1, 3), plain[name][1:3])


@pytest.mark.parametrize("keep_projector", [False, True])
def test_a_swapped_model_leaves_its_checkpoint_in_its_files(keep_projector: bool, tmp_path: Path) -> None:
    options = dict(vision_weights=VISION["clip"], template="vicuna_v1", attention="sdpa", dtype="float32")
    written(tmp_path)
    backbone = SwappedVLLM(str(tmp_path), "clip", keep_projector=keep_projector, **options)
    with read_in_pieces():
        found = dict(backbone.load_model().named_parameters())
    plain = dict(backbone.load_model().named_parameters())
    left = {name for name, parameter in found.items() if isinstance(parameter, StandIn)}
    parts = ("model.language_model.", "lm_head.", *(["model.multi_modal_projector."] if keep_projector else []))
    assert left == {name for name in plain if name.startswith(parts)} and found.keys() == plain.keys()
    for name in left:
        assert torch.equal(found[name].read(1, 3), plain[name][1:3]), name


TABLES = {
    "mixed": POSTHOC,
    "full beside adapters": Components(LORA, FROZEN, FULL),
    "full": Components(FULL, FULL, FULL),
}


class SeededParts(ComposedVLLM):
    """A composed model whose adapters begin the same wherever they are made."""

    def load_model(self) -> PreTrainedModel:
        torch.manual_seed(0)
        return super().load_model()


def pretrained(folder: Path) -> Backbone:
    return SeededCheckpoint(str(written(folder)), attention="sdpa", dtype="float32", **LLAVA.options)


def halves(folder: Path) -> Backbone:
    """In float16 on disk, of which bfloat16, the type of what is frozen, cannot hold the digits."""
    LlavaForConditionalGeneration.from_pretrained(written(folder)).half().save_pretrained(folder)
    return SeededCheckpoint(str(folder), attention="sdpa", dtype="bfloat16", **LLAVA.options)


def composed(folder: Path) -> Backbone:
    """Its tokenizer has a word more than the language model, whose words are therefore read at once."""
    tokenizer = save_tokenizer(folder)
    fields = {n: v for n, v in language_model(tokenizer, tie_word_embeddings=True).items() if n != "tokenizer"}
    LlamaForCausalLM(LlamaConfig(**fields)).save_pretrained(folder)
    return SeededParts("clip", str(folder), vision_weights=VISION["clip"], attention="sdpa", dtype="bfloat16")


def before_training(backbone: Backbone, folder: Path, name: str, table: str, world: int) -> dict[str, Any]:
    """Every weight when training starts."""
    tuned = SafetyFineTuning(backbone, TABLES[table], warmup_ratio=0.0)
    made = trainer(folder, devices=world, strategy=strategy(name), max_steps=0, precision="bf16-mixed")
    made.fit(tuned, datamodule=data(folder, batch_size=1))
    return {name: whole(tensor) for name, tensor in tensors(tuned).items()}


def each_of_two(backbone: Backbone, folder: Path, name: str, table: str) -> None:
    weights = before_training(backbone, folder, name, table, world=2)
    torch.save(weights, folder / f"{torch.distributed.get_rank()}.pt")


@pytest.mark.parametrize(
    ("name", "made", "table"),
    [
        ("fsdp2", pretrained, "mixed"),
        ("fsdp2", halves, "mixed"),
        pytest.param("fsdp2", halves, "full", marks=pytest.mark.slow),
        pytest.param("fsdp2", pretrained, "full beside adapters", marks=pytest.mark.slow),
        pytest.param("fsdp2", pretrained, "full", marks=pytest.mark.slow),
        pytest.param("fsdp2", composed, "full", marks=pytest.mark.slow),
    ],
)
def test_weights_and_new_adapters_are_those_of_one_process(
    name: str, made: Callable[[Path], Backbone], table: str, tmp_path: Path
) -> None:
    files(tmp_path)
    (tmp_path / "model").mkdir()
    backbone = made(tmp_path / "model")
    alone = before_training(backbone, tmp_path, "single", table, world=1)
    together(2, each_of_two, backbone, tmp_path, name, table)
    for rank in (0, 1):
        found = saved(tmp_path / f"{rank}.pt")
        assert found.keys() == alone.keys()
        for name, tensor in alone.items():
            assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
    if made is halves:  # the files' own digits, not those that are left of them in bfloat16
        kept = load_file(tmp_path / "model" / "model.safetensors")["multi_modal_projector.linear_1.weight"]
        trained = next(t for name, t in alone.items() if name.endswith("linear_1.weight") and "original" not in name)
        assert torch.equal(trained, kept.float()) and not torch.equal(trained, kept.bfloat16().float())


@pytest.mark.slow
def test_no_process_holds_the_whole_model(tmp_path: Path) -> None:
    """Two processes answer with a model of 300 MB, train one step of adapters and export it; what each held at most,
    from the imports on."""
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
        assert rank["answered"] < 0.8 * rank["model"], rank
        writes = rank["rank"] == 0  # the first holds the whole model on its host while it writes, and nobody else
        assert writes == (rank["exported"] > 1.2 * rank["model"]) == (rank["exported"] > 0.9 * rank["model"]), rank
    for rank in ran(2, "whole"):
        assert rank["loaded"] > 0.9 * rank["model"], rank  # the measure sees a model that is read whole
