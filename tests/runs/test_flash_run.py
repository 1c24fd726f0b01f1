"""A whole run and the commands after it as on a GPU with flash-attn, whose stand-in takes half precision only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from flash_kernels import flash_installed

from vlsafe.__main__ import main
from vlsafe.models.module import SafetyFineTuning
from vlsafe.strategies.attention import Runtime

COMPONENTS = "--model.init_args.components"


def responses(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "responses.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("train", ["full", "lora"])
def test_attention_gets_half_precision_from_the_evaluation_before_to_the_one_after(
    train: str, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What trains is float32, so that outside autocast the kernel would be handed float32, and refuse."""
    on_cpu = SafetyFineTuning.runtime.fget

    def on_gpu(module: SafetyFineTuning) -> Runtime:
        return Runtime(torch.device("cuda"), on_cpu(module).dtype)  # type: ignore[misc]

    monkeypatch.setattr(SafetyFineTuning, "runtime", property(on_gpu))
    settings = ["--trainer.precision=bf16-mixed", "--model.init_args.backbone.init_args.dtype=bfloat16"]
    if train == "full":
        settings += [f"{COMPONENTS}.language={{train: full, learning_rate: 1.0e-3}}"]
    run, guard = tmp_path / "run", ["--benchmarks", f"vlguard={tmp_path / 'guard'}", "--max-new-tokens", "4"]
    with flash_installed() as kernel:
        assert main(["fit", "--config", str(config), *settings]) == 0
        assert {"flash_attn_func", "flash_attn_varlen_func"} == set(kernel.calls)
        assert "attention: language flash_attention_2, vision flash_attention_2" in capsys.readouterr().err
        for folder in (run / "evaluation" / "before", run / "evaluation" / "after"):
            assert [row["error"] for row in responses(folder)] == [""] * len(responses(folder))
        report = json.loads((run / "report.json").read_text())
        assert report["environment"]["attention"] == "language flash_attention_2, vision flash_attention_2"
        checkpoint, base = str(run / "checkpoints" / "last.ckpt"), str(tmp_path / "base")
        models = [checkpoint, str(run / "model")]
        if train == "lora":
            assert main(["export", checkpoint, "--merge", "--lora-strength", "0", "--out", base]) == 0
            guard += ["--adapter", str(run / "adapter")]
            models = [base]
        for number, model in enumerate(models):
            out = tmp_path / str(number)
            assert main(["evaluate", "--model", model, *guard, "--check-items", "0", "--out", str(out)]) == 0
            assert [row["error"] for row in responses(out)] == [""] * len(responses(out))
            assert {row["model"]["dtype"] for row in responses(out)} == {"bfloat16"}
