"""How a backbone's weights come into training: their values, their types, and where they land."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from fitting import FROZEN, FULL, POSTHOC, Seeded, data, files, trainer
from rich.console import Console
from safetensors.torch import load_file
from tiny import IMAGE_ID, VISION, composed, language_model, save_tokenizer
from torch import nn
from transformers import AutoModelForImageTextToText, LlamaConfig, LlamaForCausalLM

from vlsafe import ComposedVLLM, PretrainedVLLM, SafetyFineTuning, SwappedVLLM
from vlsafe.errors import ConfigError
from vlsafe.models.components import Components
from vlsafe.models.loading import check_precision
from vlsafe.models.projectors import PROJECTORS
from vlsafe.models.summary import summary_table
from vlsafe.strategies.filling import StandIn

HALF, FLOAT, BRAIN = torch.float16, torch.float32, torch.bfloat16


def loaded(backbone: Any, components: Components = POSTHOC) -> SafetyFineTuning:
    tuned = SafetyFineTuning(backbone, components)
    tuned.configure_model()
    return tuned


def llava(tokenizer: Path, folder: Path, dtype: torch.dtype = HALF) -> Path:
    """A checkpoint as LLaVA's on the hub: in float16, of which bfloat16 cannot hold the digits."""
    backbone = composed(tokenizer, template="vicuna_v1")
    backbone.load_model().to(dtype).save_pretrained(folder)
    backbone.processor.save_pretrained(folder)
    return folder


def words(tokenizer: Path, folder: Path) -> str:
    """A language model that lies in files, with a word to spare for a picture's token."""
    fields = language_model(tokenizer, vocab_size=IMAGE_ID + 1)
    fields = {name: value for name, value in fields.items() if name not in ("tokenizer", "model_type")}
    LlamaForCausalLM(LlamaConfig(**fields)).save_pretrained(folder)
    return str(save_tokenizer(folder))


# --- types and values


def test_what_trains_has_the_files_own_values_in_float32(tokenizer: Path, tmp_path: Path) -> None:
    kept = load_file(llava(tokenizer, tmp_path) / "model.safetensors")
    tuned = loaded(PretrainedVLLM(str(tmp_path), attention="sdpa", dtype="bfloat16"))
    found = dict(tuned.model.named_parameters())
    projector = {n: p for n, p in found.items() if "modules_to_save" in n}
    assert len(projector) == 4
    for name, parameter in projector.items():
        values = kept[f"multi_modal_projector.{name.rpartition('.modules_to_save.default.')[2]}"]
        assert parameter.dtype == FLOAT and torch.equal(parameter, values.float()), name
        if name.endswith("weight"):
            assert not torch.equal(parameter, values.bfloat16().float())  # it would be seen
    assert {p.dtype for n, p in found.items() if "lora_" in n} == {FLOAT}
    frozen = {n: p for n, p in found.items() if not p.requires_grad}
    assert {p.dtype for p in frozen.values()} == {BRAIN} and any("original_module" in name for name in frozen)
    head = next(p for n, p in frozen.items() if n.endswith("lm_head.weight"))
    assert torch.equal(head, next(v for n, v in kept.items() if n.endswith("lm_head.weight")).bfloat16())


def test_a_model_in_full_is_float32_beside_a_frozen_encoder(tokenizer: Path, tmp_path: Path) -> None:
    kept = load_file(llava(tokenizer, tmp_path) / "model.safetensors")
    tuned = loaded(PretrainedVLLM(str(tmp_path), attention="sdpa", dtype="bfloat16"), Components(FROZEN, FULL, FULL))
    types = {(p.dtype, "vision_tower" in n) for n, p in tuned.model.named_parameters()}
    assert types == {(BRAIN, True), (FLOAT, False)}
    assert torch.equal(tuned.model.lm_head.weight, kept["language_model.lm_head.weight"].float())


def test_files_that_cannot_be_read_in_pieces_keep_their_digits_too(tokenizer: Path, tmp_path: Path) -> None:
    llava(tokenizer, tmp_path)
    kept = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(kept, tmp_path / "pytorch_model.bin")
    tuned = loaded(PretrainedVLLM(str(tmp_path), attention="sdpa", dtype="bfloat16"))
    (weight,) = (p for n, p in tuned.model.named_parameters() if n.endswith("modules_to_save.default.linear_1.weight"))
    assert torch.equal(weight, kept["multi_modal_projector.linear_1.weight"].float())
    assert tuned.model.get_base_model().lm_head.weight.dtype == BRAIN


def test_the_table_states_the_types_in_which_it_trains(tokenizer: Path, tmp_path: Path) -> None:
    tuned = SafetyFineTuning(composed(tokenizer, dtype="bfloat16"), POSTHOC)
    trainer(tmp_path, precision="bf16-mixed", max_steps=1).fit(tuned, datamodule=data(files(tmp_path)))
    told = [(row["component"], row["dtype"], row["frozen_dtype"]) for row in tuned.trained]
    assert told == [
        ("vision", "", "bfloat16"), ("projector", "float32", ""), ("language", "float32", "bfloat16"),
    ]  # fmt: skip
    Console(width=120, file=(printed := io.StringIO())).print(summary_table(tuned.trained))
    assert [line.split("│")[-2].strip() for line in printed.getvalue().splitlines() if "│" in line] == [
        "bf16", "fp32", "fp32, rest bf16",
    ]  # fmt: skip
    for name, parameter in tuned.model.named_parameters():
        assert parameter.dtype == (FLOAT if parameter.requires_grad else BRAIN), name


@pytest.mark.parametrize("table", [POSTHOC, Components(FROZEN, FULL, FULL)], ids=["lora", "full"])
def test_buffers_are_those_of_an_export_that_transformers_loads(
    table: Components, tokenizer: Path, tmp_path: Path
) -> None:
    """Rotary frequencies stay in float32: in bfloat16 a far position would be off by whole turns."""
    tuned = loaded(composed(tokenizer, dtype="bfloat16"), table)
    found = {name.replace("base_model.model.", ""): b.dtype for name, b in tuned.model.named_buffers()}
    plain = tuned._plain()
    plain.to(BRAIN).save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=BRAIN)
    expected = {name: b.dtype for name, b in again.named_buffers()}
    assert found == expected
    assert {d for n, d in found.items() if "inv_freq" in n} == {FLOAT}


def test_statistics_of_a_trained_batchnorm_are_float32_and_of_a_frozen_one_are_not(tokenizer: Path) -> None:
    for components, dtype in ((Components(FULL, FROZEN, FROZEN), FLOAT), (POSTHOC, BRAIN)):
        tuned = loaded(composed(tokenizer, "efficientnet_lite0", dtype="bfloat16"), components)
        types = {b.dtype for n, b in tuned.model.named_buffers() if "running_" in n}
        assert types == {dtype}


# --- precision


@pytest.mark.parametrize(
    ("precision", "words"),
    [
        ("bf16-true", "rounds most steps of a usual learning rate away; set trainer.precision: bf16-mixed"),
        ("16-true", "in float16, which rounds"),
        ("16-mixed", "which are summed and clipped here unscaled; set trainer.precision: bf16-mixed"),
        ("transformer-engine", "is not supported; set"),
        ("32-true", "computes in float32, but model.backbone.dtype is bfloat16; set trainer.precision: bf16-mixed"),
    ],
)
def test_precisions_that_would_lose_steps_are_refused(precision: str, words: str, tokenizer: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        check_precision(precision, composed(tokenizer, dtype="bfloat16"))
    for fits in ("32-true", "bf16-mixed", "64-true"):
        check_precision(fits, composed(tokenizer))


def test_fit_refuses_them_before_weights_load(tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Seeded, "load_model", lambda _: pytest.fail("weights were loaded"))
    backbone = Seeded("clip", language_model(tokenizer), vision_weights=VISION["clip"], attention="sdpa")
    with pytest.raises(ConfigError, match=r"bf16-true keeps weights and AdamW's moments in bfloat16"):
        trainer(tmp_path, precision="bf16-true").fit(
            SafetyFineTuning(backbone, POSTHOC), datamodule=data(files(tmp_path))
        )


# --- where it lands, and no generator but its own


@pytest.mark.parametrize("projector", PROJECTORS.names())
def test_a_composed_model_lands_on_one_device(projector: str, tokenizer: Path, tmp_path: Path) -> None:
    """``meta`` in the place of a GPU: Lightning builds models inside the context of the run's device."""
    on_one_device(
        ComposedVLLM("clip", words(tokenizer, tmp_path), VISION["clip"], projector=projector, attention="sdpa")
    )


@pytest.mark.parametrize("keep_projector", [False, True])
def test_a_swapped_model_lands_on_one_device(keep_projector: bool, tokenizer: Path, tmp_path: Path) -> None:
    checkpoint = str(llava(tokenizer, tmp_path))
    on_one_device(SwappedVLLM(checkpoint, "clip", VISION["clip"], keep_projector=keep_projector, attention="sdpa"))


def test_a_checkpoint_lands_on_one_device(tokenizer: Path, tmp_path: Path) -> None:
    on_one_device(PretrainedVLLM(str(llava(tokenizer, tmp_path)), attention="sdpa"))


def on_one_device(backbone: Any) -> None:
    with torch.device("meta"):
        tuned = loaded(backbone)
    places = {str(t.device) for t in (*tuned.model.parameters(), *tuned.model.buffers())}
    assert places == {"meta"}


@pytest.mark.parametrize("name", PROJECTORS.names())
def test_a_new_projector_is_drawn_by_a_generator_of_its_own(
    name: str, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And has the bits that ``torch.manual_seed`` of its seed would give."""
    language = words(tokenizer, tmp_path)
    backbone = ComposedVLLM("clip", language, VISION["clip"], projector=name, projector_seed=3, attention="sdpa")
    assert backbone.processor
    with monkeypatch.context() as patch:
        patch.setattr(torch, "manual_seed", lambda _: pytest.fail("every generator was seeded, a GPU's too"))
        model = backbone.load_model()
    torch.manual_seed(3)
    first, second = nn.Linear(16, 16), nn.Linear(16, 16)
    torch.manual_seed(3)
    for layer in (first, second):
        nn.init.xavier_uniform_(layer.weight)
    spread = model.get_input_embeddings().weight.std().item()
    with torch.no_grad():
        if name == "linear":
            nn.init.eye_(second.weight)
            first.weight.mul_(spread)
        else:
            second.weight.mul_(spread)
    found = model.model.multi_modal_projector
    assert torch.equal(found.linear_1.weight, first.weight) and torch.equal(found.linear_2.weight, second.weight)


# --- names on the hub


def test_a_name_on_the_hub_is_read_in_pieces(tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache as huggingface_hub writes it, without a network."""
    folder, commit = tmp_path / "hub" / "models--some--llava", "a" * 40
    kept = load_file(llava(tokenizer, folder / "snapshots" / commit) / "model.safetensors")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    backbone = PretrainedVLLM("some/llava", attention="sdpa", dtype="bfloat16")
    read: list[str] = []
    monkeypatch.setattr(StandIn, "read", lambda self, *rows: read.append("") or _read(self, *rows))
    tuned = loaded(backbone)
    assert len(read) == len(kept)
    assert torch.equal(tuned.model.get_base_model().lm_head.weight, kept["language_model.lm_head.weight"].bfloat16())


_read = StandIn.read
