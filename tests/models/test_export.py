"""What a run leaves: directories that plain transformers and PEFT load, whole or not at all."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fitting import data, files, module, trainer
from peft import PeftModel
from safetensors import safe_open
from tiny import ask, composed, seeded_model
from torch import Tensor

from vlsafe import PretrainedVLLM, SafetyFineTuning
from vlsafe.conversation import ImageRef
from vlsafe.data.collate import Collate
from vlsafe.data.encoding import Encoding
from vlsafe.errors import VlsafeError
from vlsafe.models.adaptation import Components
from vlsafe.models.export import export_adapter, export_model, written_whole

RELOAD = """
import sys, torch
from transformers import AutoModelForImageTextToText
kept = torch.load(sys.argv[2], weights_only=True)
model = AutoModelForImageTextToText.from_pretrained(sys.argv[1]).eval()
assert "vlsafe" not in sys.modules
with torch.inference_mode():
    logits = model(**kept["inputs"]).logits
print("difference", float((logits - kept["logits"]).abs().max()), model.generation_config.eos_token_id)
"""


@pytest.fixture
def tuned(tokenizer: Path, tmp_path: Path) -> SafetyFineTuning:
    made = module(tokenizer)
    trainer(tmp_path).fit(made, datamodule=data(files(tmp_path)))
    return made.eval()


@pytest.fixture
def inputs(tuned: SafetyFineTuning, picture: ImageRef) -> dict[str, Tensor]:
    encoding = Encoding(tuned.backbone.processor)
    return Collate(0)([encoding.sample(ask("colour?", "red", picture)), encoding.sample(ask("hi", "yes"))]).inputs


@torch.inference_mode()
def logits(model: object, batch: dict[str, Tensor]) -> Tensor:
    return model(**batch).logits  # type: ignore[operator]


@pytest.mark.slow
def test_the_merged_model_gives_the_same_logits_in_a_new_process(
    tuned: SafetyFineTuning, inputs: dict[str, Tensor], tmp_path: Path
) -> None:
    before = logits(tuned.model, inputs)
    out = export_model(tuned, tmp_path / "model", "# what it is")
    assert (out / "README.md").read_text() == "# what it is"
    merged = logits(tuned.model, inputs)
    assert torch.allclose(merged, before, atol=1e-5)
    torch.save({"inputs": inputs, "logits": merged}, tmp_path / "kept.pt")
    command = [sys.executable, "-c", RELOAD, str(out), str(tmp_path / "kept.pt")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("difference ")[1] == "0.0 [2, 4]\n"
    pretrained = PretrainedVLLM(str(out), dtype="float32")
    assert pretrained.processor.chat_template == tuned.backbone.processor.chat_template


@pytest.mark.slow
def test_our_own_encoder_loads_in_a_new_process_too(tokenizer: Path, tmp_path: Path) -> None:
    """transformers does not know EfficientNet-Lite0: PretrainedVLLM has to tell it, with nothing else imported."""
    model = seeded_model(composed(tokenizer, "efficientnet_lite0"))
    model.save_pretrained(tmp_path / "model")
    total = sum(float(parameter.double().sum()) for parameter in model.parameters())
    code = (
        "import sys; from vlsafe import PretrainedVLLM; "
        "model = PretrainedVLLM(sys.argv[1], dtype='float32').load_model(); "
        "print(sum(float(p.double().sum()) for p in model.parameters()))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(total)


def test_the_adapter_on_a_freshly_assembled_base_gives_the_same_logits(
    tuned: SafetyFineTuning, inputs: dict[str, Tensor], tmp_path: Path
) -> None:
    out = export_adapter(tuned, tmp_path / "adapter", "# an adapter")
    assert out is not None and (out / "README.md").read_text() == "# an adapter"
    base = tuned.backbone.load_model()
    assert not torch.allclose(logits(base.eval(), inputs), logits(tuned.model, inputs), atol=1e-3)
    again = PeftModel.from_pretrained(base, out).eval()
    assert torch.equal(logits(again, inputs), logits(tuned.model, inputs))
    with safe_open(out / "adapter_model.safetensors", "pt") as file:
        names = set(file.keys())
    assert all("lora_" in name or "multi_modal_projector" in name for name in names)
    assert sum("multi_modal_projector" in name for name in names) == 4


def test_a_model_without_adapters_has_no_adapter_to_export(tokenizer: Path, tmp_path: Path) -> None:
    from fitting import FROZEN, FULL

    plain = module(tokenizer, Components(FROZEN, FULL, FROZEN))
    plain.configure_model()
    assert export_adapter(plain, tmp_path / "adapter", "") is None
    assert not (tmp_path / "adapter").exists()


def test_a_module_without_a_model_says_so(tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(VlsafeError, match="nothing to export: the model has not been loaded"):
        export_model(module(tokenizer), tmp_path / "model", "")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["system", "safetensors"],
)
def test_a_full_disk_leaves_nothing_half_written(
    error: Exception, tuned: SafetyFineTuning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def full(_: object, target: Path, **__: object) -> None:
        (Path(target) / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", full)
    for directory in (out / "new", out / "old"):
        if directory.name == "old":
            directory.mkdir()
            (directory / "kept").write_text("from before")
        with pytest.raises(VlsafeError) as caught:
            export_model(tuned, directory, "")
        assert str(caught.value) == (
            f"the disk is full: {directory} could not be written and nothing of it is left. Free some space and run "
            "`python -m vlsafe export` on the run's last checkpoint"
        )
    assert [str(p.relative_to(out)) for p in sorted(out.rglob("*"))] == ["old", "old/kept"]


def test_another_failure_is_told_as_it_is_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(VlsafeError, match=r"model could not be written: \[Errno 13\] Permission denied"), \
         written_whole(tmp_path / "model"):  # fmt: skip
        raise PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(ValueError, match="a bug"), written_whole(tmp_path / "model") as target:
        (target / "half").write_text("")
        raise ValueError("a bug")
    assert list(tmp_path.iterdir()) == []


def test_a_new_export_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with written_whole(tmp_path / "model") as target:
            (target / name).write_text(name)
    assert [p.name for p in (tmp_path / "model").iterdir()] == ["second"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
