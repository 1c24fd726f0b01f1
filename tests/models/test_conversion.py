"""Published layouts become Hugging Face folders: the same logits, every key matched, one file at a time.

The original layouts are written here by hand, key by key, from models whose logits are known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import CHARACTERS, SPECIAL, ask, language_model, save_tokenizer, talk
from torch import Tensor
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    Blip2VisionConfig,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
)

from vlsafe.__main__ import main
from vlsafe.conversation import ImageRef, user
from vlsafe.data.collate import Collate
from vlsafe.data.encoding import Encoding
from vlsafe.errors import ConfigError, DataError, VlsafeError
from vlsafe.models.conversion import lora, plan, shards
from vlsafe.models.conversion.llava import convert_llava
from vlsafe.models.conversion.minigpt import convert_minigpt
from vlsafe.models.minigpt import MiniGPTv2Config, MiniGPTv2ForConditionalGeneration

ROWS = len(SPECIAL) + len(CHARACTERS)
"""Vocabulary of the original models; with the new tokens it grows to 128 rows."""
GROWN = 128
CLIP_SIZES = dict(
    hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
)
LLAMA = {k: v for k, v in language_model(Path()).items() if k not in ("model_type", "tokenizer", "pad_token_id")}
Weights = dict[str, Tensor]


@torch.inference_mode()
def logits(model: PreTrainedModel, inputs: Weights) -> Tensor:
    """Of the words that the original knows."""
    return model.eval()(**inputs).logits[..., :ROWS]


def inputs_for(folder: Path, picture: ImageRef) -> Weights:
    encoding = Encoding(AutoProcessor.from_pretrained(folder))
    return Collate(0)([encoding.sample(ask("colour?", "red", picture)), encoding.sample(ask("hi", "yes"))]).inputs


def rescaled(model: PreTrainedModel) -> Any:
    """Weights large enough that a swapped or missing one shows in the logits."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return model


# --- LLaVA: an original folder, written by hand


@pytest.fixture(scope="module")
def llava() -> LlavaForConditionalGeneration:
    torch.manual_seed(0)
    text = LlamaConfig(**LLAMA | {"vocab_size": GROWN})
    vision = CLIPVisionConfig(**CLIP_SIZES)
    return rescaled(LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text)))


def original_llava(model: PreTrainedModel) -> Weights:
    """The state dict as the LLaVA code base would have saved it: no rows for <image>, and its old buffers."""
    renamed = (
        (r"^model\.language_model\.", "model."),
        (r"^model\.vision_tower\.", "model.vision_tower.vision_tower.vision_model."),
        (r"^model\.multi_modal_projector\.linear_1", "model.mm_projector.0"),
        (r"^model\.multi_modal_projector\.linear_2", "model.mm_projector.2"),
    )
    weights = {}
    for key, tensor in model.state_dict().items():
        for pattern, new in renamed:
            if re.match(pattern, key):
                key = re.sub(pattern, new, key)
                break
        weights[key] = tensor[:ROWS].clone() if key in ("model.embed_tokens.weight", "lm_head.weight") else tensor
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    weights["model.vision_tower.vision_tower.vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    return weights


def write_llava(folder: Path, weights: Weights, pieces: int = 2, safe: bool = False, **changed: Any) -> Path:
    """config.json, tokenizer and ``pieces`` shards."""
    save_tokenizer(folder)
    text = LLAMA | {"vocab_size": ROWS, "rms_norm_eps": 1e-6, "torch_dtype": "float32", "rope_scaling": None}
    config = text | {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava_llama",
        "mm_vision_tower": "openai/clip-vit-large-patch14-336",
        "mm_projector_type": "mlp2x_gelu",
        "mm_hidden_size": 16,
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "image_aspect_ratio": "pad",
        "tune_mm_mlp_adapter": False,
        "use_mm_proj": True,
    }
    (folder / "config.json").write_text(json.dumps(config | changed))
    write_weights(folder, weights, pieces, safe)
    return folder


def write_weights(folder: Path, weights: Weights, pieces: int = 2, safe: bool = False) -> None:
    stem, suffix = ("model", "safetensors") if safe else ("pytorch_model", "bin")
    names = [f"{stem}-{i + 1:05}-of-{pieces:05}.{suffix}" for i in range(pieces)]
    where = {key: names[i % pieces] for i, key in enumerate(weights)}
    for name in names:
        held = {key: weights[key].contiguous() for key, file in where.items() if file == name}
        save_file(held, folder / name) if safe else torch.save(held, folder / name)
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": where}))


@pytest.fixture
def clip(llava: LlavaForConditionalGeneration, tmp_path: Path) -> Path:
    """A whole CLIP, whose vision half is the original's encoder."""
    text = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=10)
    model = CLIPModel(CLIPConfig(vision_config=CLIP_SIZES, text_config=text, projection_dim=16))
    model.vision_model.load_state_dict(llava.model.vision_tower.state_dict())
    folder = tmp_path / "clip"
    model.save_pretrained(folder)
    return folder


# --- LLaVA: whole checkpoints


@pytest.mark.parametrize("safe", [False, True], ids=["bin", "safetensors"])
def test_a_llava_gives_the_logits_of_the_model_it_came_from(
    safe: bool, llava: LlavaForConditionalGeneration, clip: Path, picture: ImageRef, tmp_path: Path
) -> None:
    source = write_llava(tmp_path / "original", original_llava(llava), safe=safe)
    convert_llava(source, tmp_path / "out", vision_tower=clip)
    again, report = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert type(again) is LlavaForConditionalGeneration
    assert not any(report.values()), report
    inputs = inputs_for(tmp_path / "out", picture)
    llava.config.image_token_index = again.config.image_token_index
    assert torch.equal(logits(again, inputs), logits(llava, inputs))
    assert again.config.image_token_id == ROWS
    assert again.config.text_config.vocab_size == len(again.lm_head.weight) == GROWN
    assert (again.config.vision_feature_layer, again.config.vision_feature_select_strategy) == (-2, "default")


def test_the_names_are_those_of_published_hugging_face_checkpoints(
    llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path
) -> None:
    convert_llava(write_llava(tmp_path / "original", original_llava(llava)), tmp_path / "out", vision_tower=clip)
    names = set(load_file(tmp_path / "out" / "model.safetensors"))
    assert {
        "language_model.lm_head.weight",
        "language_model.model.layers.0.self_attn.q_proj.weight",
        "multi_modal_projector.linear_1.bias",
        "vision_tower.vision_model.embeddings.class_embedding",
        "vision_tower.vision_model.pre_layrnorm.weight",
    } <= names
    assert len(names) == len(llava.state_dict())


def test_new_words_are_never_the_likeliest(llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path) -> None:
    convert_llava(write_llava(tmp_path / "original", original_llava(llava)), tmp_path / "out", vision_tower=clip)
    weights = load_file(tmp_path / "out" / "model.safetensors")
    for name in ("language_model.lm_head.weight", "language_model.model.embed_tokens.weight"):
        old, new = weights[name][:ROWS], weights[name][ROWS:]
        assert torch.allclose(new, old.mean(0).expand(GROWN - ROWS, -1), atol=1e-6)


def test_processor_and_template_are_written(
    llava: LlavaForConditionalGeneration, clip: Path, picture: ImageRef, tmp_path: Path
) -> None:
    convert_llava(write_llava(tmp_path / "original", original_llava(llava)), tmp_path / "out", vision_tower=clip)
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    prompt = Encoding(processor).prompt(talk(user(picture, "colour?")))
    assert prompt.text == (
        "<s>A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: <image>\ncolour? ASSISTANT:"
    )
    assert (prompt.input_ids == ROWS).sum() == 4
    assert processor.tokenizer.pad_token == "<pad>"
    assert processor.image_processor.do_pad
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (generation["eos_token_id"], generation["pad_token_id"]) == (2, processor.tokenizer.pad_token_id)


def test_an_encoder_that_the_checkpoint_holds_wins_over_the_folder(
    llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path
) -> None:
    """LLaVA that was tuned with its encoder has another one than OpenAI's."""
    weights = original_llava(llava)
    key = "model.vision_tower.vision_tower.vision_model.pre_layrnorm.weight"
    weights[key] = weights[key] + 1
    convert_llava(write_llava(tmp_path / "with", weights), tmp_path / "out", vision_tower=clip)
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(written["vision_tower.vision_model.pre_layrnorm.weight"], weights[key])


def test_an_encoder_that_it_does_not_hold_comes_from_the_folder(
    llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path
) -> None:
    weights = {k: v for k, v in original_llava(llava).items() if "vision_tower" not in k}
    source = write_llava(tmp_path / "original", weights)
    convert_llava(source, tmp_path / "out", vision_tower=clip)
    written = load_file(tmp_path / "out" / "model.safetensors")
    for name, tensor in llava.model.vision_tower.state_dict().items():
        assert torch.equal(written[f"vision_tower.vision_model.{name}"], tensor)


def test_a_linear_projector_gives_the_same_features(
    llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path
) -> None:
    weights = original_llava(llava)
    for part in ("weight", "bias"):
        weights[f"model.mm_projector.{part}"] = weights.pop(f"model.mm_projector.0.{part}")
        del weights[f"model.mm_projector.2.{part}"]
    source = write_llava(tmp_path / "original", weights, mm_projector_type="linear")
    convert_llava(source, tmp_path / "out", vision_tower=clip)
    project = AutoModelForImageTextToText.from_pretrained(tmp_path / "out").model.multi_modal_projector
    features = torch.randn(3, 16)
    expected = torch.nn.functional.linear(
        features, weights["model.mm_projector.weight"], weights["model.mm_projector.bias"]
    )
    assert torch.equal(project(features), expected)


def test_half_precision_stays_and_a_full_precision_encoder_follows(
    llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path
) -> None:
    weights = {k: v.half() for k, v in original_llava(llava).items() if "vision_tower" not in k}
    convert_llava(write_llava(tmp_path / "original", weights), tmp_path / "out", vision_tower=clip)
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in written.values()} == {torch.float16}
    name = "language_model.model.layers.1.mlp.up_proj.weight"
    assert torch.equal(written[name], weights["model.layers.1.mlp.up_proj.weight"])
    assert AutoModelForImageTextToText.from_pretrained(tmp_path / "out").dtype == torch.float16


def test_known_encoders_need_no_folder_when_their_weights_are_there(
    llava: LlavaForConditionalGeneration, tmp_path: Path
) -> None:
    """The sizes are those of the named encoder, so weights of another one do not fit."""
    source = write_llava(tmp_path / "original", original_llava(llava))
    with pytest.raises(
        DataError, match=r"class_embedding in pytorch_model-.* gives \[16\], the config asks for \[1024\]"
    ):
        convert_llava(source, tmp_path / "out")
    source = write_llava(tmp_path / "other", original_llava(llava), mm_vision_tower="my/clip")
    with pytest.raises(ConfigError, match=r"'my/clip' has sizes unknown here; name its folder with --vision-tower"):
        convert_llava(source, tmp_path / "out")


# --- LLaVA: LoRA checkpoints


def peft_adapter(model: PreTrainedModel, folder: Path, **options: Any) -> PreTrainedModel:
    """A random adapter on the language model, saved as LLaVA saves it; the merged model."""
    targets = r"model\.layers\.\d\.(self_attn\.[qv]_proj|mlp\.down_proj)"
    config = LoraConfig(r=2, lora_alpha=6, target_modules=targets, task_type="CAUSAL_LM", **options)
    adapted = rescaled_lora(get_peft_model(model, config))
    adapted.save_pretrained(folder, safe_serialization=True)
    weights = load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").unlink()
    torch.save(weights, folder / "adapter_model.bin")
    return adapted.merge_and_unload()


def rescaled_lora(model: Any) -> Any:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model


def lora_llava(llava: LlavaForConditionalGeneration, tmp_path: Path, **options: Any) -> tuple[Path, Path, Any]:
    """The LoRA folder, its Vicuna, and Vicuna with the adapter merged by PEFT."""
    original = original_llava(llava)
    vicuna = LlamaForCausalLM(LlamaConfig(**LLAMA | {"vocab_size": ROWS}))
    language = {k: v for k, v in original.items() if "vision_tower" not in k and "mm_projector" not in k}
    vicuna.load_state_dict({k: v for k, v in language.items() if "inv_freq" not in k})
    base = tmp_path / "vicuna"
    vicuna.save_pretrained(base)
    save_tokenizer(base)
    source = write_llava(tmp_path / "lora", {"unused": torch.zeros(1)}, pieces=1)
    for file in [*source.glob("pytorch_model*"), *source.glob("token*")]:
        file.unlink()
    merged = peft_adapter(vicuna, source, **options)
    beside = {f"base_model.model.{k}": v for k, v in original.items() if "mm_projector" in k}
    torch.save(beside, source / "non_lora_trainables.bin")
    return source, base, merged


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}], ids=["lora", "rslora"])
def test_lora_weights_are_merged_as_peft_merges_them(
    options: dict[str, Any], llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path
) -> None:
    source, base, merged = lora_llava(llava, tmp_path, **options)
    convert_llava(source, tmp_path / "out", base=base, vision_tower=clip)
    written = load_file(tmp_path / "out" / "model.safetensors")
    for key, tensor in merged.state_dict().items():
        assert torch.allclose(written[f"language_model.{key}"][: len(tensor)], tensor, atol=1e-6), key
    before = original_llava(llava)["model.layers.0.mlp.down_proj.weight"]
    assert not torch.allclose(written["language_model.model.layers.0.mlp.down_proj.weight"], before, atol=1e-2)
    projector = llava.model.multi_modal_projector
    assert torch.equal(written["multi_modal_projector.linear_2.weight"], projector.linear_2.weight)


def test_a_delta_written_by_hand() -> None:
    """Rank 2, alpha 6: scale 3."""
    a, b = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    pair = {"base_model.model.q.lora_A.weight": a, "base_model.model.q.lora_B.default.weight": b}
    found = lora.deltas(pair, 6.0, 2, Path("adapter"))
    assert list(found) == ["q"]
    merged = found["q"].onto(torch.ones(2, 3))
    assert merged.tolist() == [[4.0, 1.0, 7.0], [1.0, 7.0, 1.0]]
    assert found["q"].onto(torch.ones(2, 3).half()).dtype == torch.float16


def test_an_original_llava_can_be_the_base_and_the_adapters_projector_wins(
    llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path
) -> None:
    """Post-hoc LoRA: the base is a LLaVA with a projector of its own."""
    source, _, _ = lora_llava(llava, tmp_path)
    weights = original_llava(llava)
    tuned = torch.load(source / "non_lora_trainables.bin", weights_only=True)
    torch.save({k: v + 1 for k, v in tuned.items()}, source / "non_lora_trainables.bin")
    base = write_llava(tmp_path / "base", weights)
    convert_llava(source, tmp_path / "out", base=base, vision_tower=clip)
    written = load_file(tmp_path / "out" / "model.safetensors")
    expected = weights["model.mm_projector.0.weight"] + 1
    assert torch.equal(written["multi_modal_projector.linear_1.weight"], expected)


def test_what_a_lora_checkpoint_lacks_is_said(llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path) -> None:
    source, base, _ = lora_llava(llava, tmp_path)
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match=r"lora is a LoRA checkpoint: name the folder of the model that it adapts"):
        convert_llava(source, out, vision_tower=clip)
    config = json.loads((source / "adapter_config.json").read_text())

    def refused(match: str) -> None:
        with pytest.raises(DataError, match=match):
            convert_llava(source, out, base=base, vision_tower=clip)
        assert not out.exists()

    (source / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True, "bias": "all"}))
    refused(r"use_dora=True, bias=all cannot be merged shard by shard; merge it with PEFT on its base")
    (source / "adapter_config.json").write_text(json.dumps(config | {"r": 4}))
    refused(r"q_proj has ranks 2 and 2, its config says 4")
    (source / "adapter_config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "lora_alpha"}))
    refused(r"adapter_config.json: lacks lora_alpha")
    (source / "adapter_config.json").write_text(json.dumps(config))
    adapter = torch.load(source / "adapter_model.bin", weights_only=True)
    first = next(iter(adapter))
    torch.save({k: v for k, v in adapter.items() if k != first}, source / "adapter_model.bin")
    refused(r"the other half is missing")
    torch.save({k.replace("layers.0", "layers.7"): v for k, v in adapter.items()}, source / "adapter_model.bin")
    refused(r"unexpected: LoRA weights for language_model.model.layers.7.*, which the model does not have")
    torch.save(adapter, source / "adapter_model.bin")
    (source / "non_lora_trainables.bin").unlink()
    refused(r"non_lora_trainables.bin, which holds the projector, is missing")


def test_a_whole_checkpoint_takes_no_base(llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path) -> None:
    source = write_llava(tmp_path / "original", original_llava(llava))
    with pytest.raises(ConfigError, match=r"has no adapter_config.json: its weights are whole, leave --base out"):
        convert_llava(source, tmp_path / "out", base=clip, vision_tower=clip)


# --- what does not fit


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


# --- memory, disk


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


# --- MiniGPT-v2

EVA = dict(
    hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4
)


@pytest.fixture(scope="module")
def minigpt() -> MiniGPTv2ForConditionalGeneration:
    torch.manual_seed(0)
    config = MiniGPTv2Config(
        vision_config=Blip2VisionConfig(**EVA),
        text_config=LlamaConfig(**LLAMA | {"vocab_size": GROWN}),
        image_token_id=ROWS,
    )
    model = rescaled(MiniGPTv2ForConditionalGeneration(config))
    with torch.no_grad():
        model.model.vision_tower.post_layernorm.weight.fill_(1)
        model.model.vision_tower.post_layernorm.bias.zero_()
        for block in model.model.vision_tower.encoder.layers:
            block.self_attn.qkv.bias[16:32] = 0  # EVA's keys have no bias
    return model


def eva_weights(model: MiniGPTv2ForConditionalGeneration) -> Weights:
    """EVA ViT-g's file: one block more than is read, and what its pretraining needed."""
    weights = {}
    for key, tensor in model.model.vision_tower.state_dict().items():
        if key.startswith("post_layernorm"):
            continue
        key = key.replace("embeddings.class_embedding", "cls_token").replace(
            "embeddings.position_embedding", "pos_embed"
        )
        key = key.replace("embeddings.patch_embedding", "patch_embed.proj").replace("encoder.layers", "blocks")
        key = (
            key.replace("layer_norm", "norm").replace("self_attn.projection", "attn.proj").replace("self_attn", "attn")
        )
        if key.endswith("qkv.bias"):
            weights[key.replace("qkv.bias", "q_bias")] = tensor[:16].clone()
            weights[key.replace("qkv.bias", "v_bias")] = tensor[32:].clone()
        else:
            weights[key] = tensor
    extra = {key.replace("blocks.1.", "blocks.2."): torch.zeros_like(t) for key, t in weights.items() if ".1." in key}
    return weights | extra | {"norm.weight": torch.ones(16), "head.weight": torch.ones(2, 16)}


def minigpt_files(model: MiniGPTv2ForConditionalGeneration, folder: Path) -> tuple[Path, Path, Path, Weights]:
    """Checkpoint without LoRA weights, Llama folder, EVA file; and the Llama's weights."""
    llama = LlamaForCausalLM(LlamaConfig(**LLAMA | {"vocab_size": ROWS}))
    language = {
        key.replace("model.language_model", "model"): tensor[:ROWS] if tensor.shape[0] == GROWN else tensor
        for key, tensor in model.state_dict().items()
        if key.startswith(("model.language_model", "lm_head"))
    }
    llama.load_state_dict(language)
    llama.save_pretrained(folder / "llama")
    save_tokenizer(folder / "llama")
    torch.save(eva_weights(model), folder / "eva_vit_g.pth")
    projector = {f"llama_proj.{k}": v for k, v in model.model.multi_modal_projector.state_dict().items()}
    torch.save({"model": projector, "epoch": 3}, folder / "checkpoint.pth")
    return folder / "checkpoint.pth", folder / "llama", folder / "eva_vit_g.pth", language


def test_minigpt_gives_the_logits_of_the_model_it_came_from(
    minigpt: MiniGPTv2ForConditionalGeneration, picture: ImageRef, tmp_path: Path
) -> None:
    checkpoint, llama, eva, _ = minigpt_files(minigpt, tmp_path)
    done = convert_minigpt(checkpoint, tmp_path / "out", llama, eva, vision=Blip2VisionConfig(**EVA))
    again, report = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values()), report
    inputs = inputs_for(tmp_path / "out", picture)
    assert torch.equal(logits(again, inputs), logits(minigpt, inputs))
    assert (again.config.image_token_id, again.config.text_config.vocab_size) == (ROWS, GROWN)
    words = str(done)
    assert "as it starts: the checkpoint holds none" in words
    assert "no LoRA weights there" in words


def lora_of(language: Weights, default: str = "") -> tuple[Weights, Weights]:
    """LoRA weights on q and v of rank 4 as MiniGPT-v2's checkpoint has them, and their products B @ A by key."""
    pieces, products = {}, {}
    for key in language:
        if key.endswith(("q_proj.weight", "v_proj.weight")):
            module = "llama_model.base_model.model." + key.removesuffix(".weight")
            a, b = torch.randn(4, 16), torch.randn(16, 4)
            pieces |= {f"{module}.lora_A{default}.weight": a, f"{module}.lora_B{default}.weight": b}
            products[key] = b @ a
    return pieces, products


@pytest.mark.parametrize("default", ["", ".default"])
def test_minigpts_lora_is_merged_with_the_alpha_of_its_config(
    default: str, minigpt: MiniGPTv2ForConditionalGeneration, tmp_path: Path
) -> None:
    checkpoint, llama, eva, language = minigpt_files(minigpt, tmp_path)
    content = torch.load(checkpoint, weights_only=True)
    pieces, products = lora_of(language, default)
    norm = {"ln_vision.weight": torch.full((16,), 2.0), "ln_vision.bias": torch.full((16,), 3.0)}
    content["model"] |= pieces | norm
    content["config"] = {"model": {"lora_alpha": 2, "arch": "minigpt_v2"}, "run": {"seed": 1}}
    torch.save(content, checkpoint)
    done = convert_minigpt(checkpoint, tmp_path / "out", llama, eva, vision=Blip2VisionConfig(**EVA))
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert len(products) == 4
    for key, product in products.items():
        expected = language[key] + 0.5 * product  # alpha 2 over rank 4
        assert torch.allclose(written[key.replace("model.", "model.language_model.", 1)], expected, atol=1e-6)
    assert "0.5" in done.facts["scale of LoRA"]
    assert done.facts["LoRA"] == "merged into 4 layers"
    assert (written["model.vision_tower.post_layernorm.weight"] == 2).all()
    assert (written["model.vision_tower.post_layernorm.bias"] == 3).all()


def test_the_alpha_is_never_guessed(minigpt: MiniGPTv2ForConditionalGeneration, tmp_path: Path) -> None:
    checkpoint, llama, eva, language = minigpt_files(minigpt, tmp_path)
    content = torch.load(checkpoint, weights_only=True)
    content["model"] |= lora_of(language)[0]
    torch.save(content, checkpoint)
    vision, out = Blip2VisionConfig(**EVA), tmp_path / "out"
    with pytest.raises(ConfigError, match=r"does not say the alpha of its LoRA weights; name it with --lora-alpha"):
        convert_minigpt(checkpoint, out, llama, eva, vision=vision)
    torch.save(content | {"config": {"model": {"lora_alpha": 16}}}, checkpoint)
    with pytest.raises(ConfigError, match=r"--lora-alpha is 32, .* was trained with 16; leave --lora-alpha out"):
        convert_minigpt(checkpoint, out, llama, eva, lora_alpha=32, vision=vision)
    done = convert_minigpt(checkpoint, out, llama, eva, lora_alpha=16, vision=vision)
    assert done.facts["scale of LoRA"] == "4"


def test_positions_are_stretched_to_a_larger_picture(
    minigpt: MiniGPTv2ForConditionalGeneration, tmp_path: Path
) -> None:
    """A 4 x 4 grid becomes 8 x 8: a plane that rises evenly stays one, and the class token's vector stays."""
    checkpoint, llama, eva, _ = minigpt_files(minigpt, tmp_path)
    weights = torch.load(eva, weights_only=True)
    rising = torch.arange(4.0).repeat(4)[:, None].expand(16, 16)  # grows from left to right
    weights["pos_embed"] = torch.cat([torch.full((1, 16), 9.0), rising])[None]
    torch.save(weights, eva)
    convert_minigpt(checkpoint, tmp_path / "out", llama, eva, vision=Blip2VisionConfig(**EVA | {"image_size": 32}))
    written = load_file(tmp_path / "out" / "model.safetensors")["model.vision_tower.embeddings.position_embedding"]
    assert written.shape == (1, 65, 16)
    assert (written[0, 0] == 9).all()
    grid = written[0, 1:, 0].reshape(8, 8)
    assert torch.allclose(grid, grid[0].expand(8, 8))
    assert torch.allclose(grid[0, 2:6], torch.tensor([0.75, 1.25, 1.75, 2.25]), atol=0.1)


def test_minigpt_keys_that_do_not_fit_are_in_one_error(
    minigpt: MiniGPTv2ForConditionalGeneration, tmp_path: Path
) -> None:
    checkpoint, llama, eva, _ = minigpt_files(minigpt, tmp_path)
    weights = torch.load(eva, weights_only=True)
    for key in ("blocks.0.attn.v_bias", "blocks.1.norm2.weight"):
        del weights[key]
    weights["rel_pos_bias"] = torch.zeros(1)
    torch.save(weights, eva)
    with pytest.raises(DataError) as caught:
        convert_minigpt(checkpoint, tmp_path / "out", llama, eva, vision=Blip2VisionConfig(**EVA))
    words = str(caught.value)
    assert "eva_vit_g.pth holds blocks.0.attn.q_bias without blocks.0.attn.v_bias" in words
    assert "nothing gives model.vision_tower.encoder.layers.1.layer_norm2.weight [16]" in words
    assert "unexpected: eva_vit_g.pth holds rel_pos_bias" in words
    assert not (tmp_path / "out").exists()
    torch.save({"model": {"x": torch.zeros(1)}}, checkpoint)
    with pytest.raises(DataError, match=r"holds no llama_proj.weight, so it is no checkpoint of MiniGPT-v2"):
        convert_minigpt(checkpoint, tmp_path / "out", llama, eva)
    (llama / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(DataError, match=r"model_type is 'gpt2'; MiniGPT-v2 was trained on Llama-2-chat"):
        convert_minigpt(checkpoint, tmp_path / "out", llama, eva)


# --- the verb


def test_the_verb_converts_and_tells_what_it_did(
    llava: LlavaForConditionalGeneration, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_llava(tmp_path / "original", original_llava(llava))
    for number, place in enumerate(([str(tmp_path / "out0")], ["--out", str(tmp_path / "out1")])):
        assert main(["convert", str(source), *place, "--vision-tower", str(clip)]) == 0
        told = capsys.readouterr().out
        assert (tmp_path / f"out{number}" / "config.json").is_file()
        assert told.startswith(f"{tmp_path / f'out{number}'}\n")
        assert f"{len(llava.state_dict())}, every key matched" in told
        assert "102 -> 128 rows" in told and "inv_freq" in told and "in float32" in told


def test_the_verb_says_what_is_wrong_with_the_request(
    llava: LlavaForConditionalGeneration, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_llava(tmp_path / "original", original_llava(llava), pieces=1)
    out = str(tmp_path / "out")

    def refused(*argv: str) -> str:
        assert main(["convert", *argv]) == 2
        return capsys.readouterr().err

    assert "nowhere: no such file or folder" in refused(str(tmp_path / "nowhere"), out)
    assert "name its other parts with --base and --vision-tower" in refused(str(source / "config.json"), out)
    assert "--lora-alpha is for MiniGPT-v2" in refused(str(source), out, "--lora-alpha", "16")
    with pytest.raises(SystemExit):
        main(["convert", str(source)])
    assert "name the directory to write, once: vlsafe convert SOURCE OUT, or --out OUT" in capsys.readouterr().err
