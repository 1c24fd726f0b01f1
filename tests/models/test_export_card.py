"""A run through the command line, then ``export``: what the card says, and the weights at other strengths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fitting import files
from safetensors.torch import load_file
from tiny import VISION, language_model

from vlsafe.__main__ import main
from vlsafe.errors import ConfigError
from vlsafe.fetch.manifest import FILE_NAME
from vlsafe.licences import UNKNOWN, licence_of, shown

METRIC = {"value": 84.1, "low": 80.6, "high": 87.1, "n": 442, "n_error": 0}


def config(folder: Path, tokenizer: Path) -> Path:
    backbone = {
        "vision_encoder": "clip",
        "language_model": language_model(tokenizer),
        "vision_weights": VISION["clip"],
        "attention": "sdpa",
    }
    components = {
        "projector": {"train": "full", "learning_rate": 1e-3},
        "language": {"train": "lora", "learning_rate": 1e-3, "rank": 2, "alpha": 4},
        "embeddings": "frozen",
    }
    told: dict[str, Any] = {
        "seed_everything": 1,
        "run_dir": str(folder / "run"),
        "model": {
            "class_path": "vlsafe.SafetyFineTuning",
            "init_args": {
                "backbone": {"class_path": "fitting.Seeded", "init_args": backbone},
                "components": components,
            },
        },
        "data": {
            "class_path": "vlsafe.ConversationData",
            "init_args": {
                "parts": {
                    "text": {"source": f"alpaca:{folder / 'text.json'}", "share": 0.25},
                    "pictures": {"source": {"kind": "llava", "path": str(folder / "pictures.json")}, "share": 0.75},
                },
                "samples": 16,
                "batch_size": 4,
            },
        },
        "trainer": {"accelerator": "cpu", "devices": 1, "max_steps": 2, "enable_progress_bar": False},
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(told))
    return path


@pytest.fixture(scope="module")
def run(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = files(tmp_path_factory.mktemp("card"))
    (folder / FILE_NAME).write_text(json.dumps({"licence": "CC BY 4.0"}))
    assert main(["fit", "--config", str(config(folder, tokenizer))]) == 0
    return folder / "run"


def exported(run: Path, name: str, *options: str) -> Path:
    out = run.parent / name
    assert main(["export", str(run / "checkpoints" / "last.ckpt"), "--out", str(out), *options]) == 0
    return out


def test_the_card_tells_recipe_data_and_licences(run: Path) -> None:
    card = (run / "model" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n") and "## What it gained" not in card
    assert "| language | lora | 1,088 of 8,496 | 0.001 | rank 2, alpha 4, embeddings frozen, head frozen |" in card
    assert "| max_steps | 2 |" in card and "| batch_size | 4 |" in card and "| objective | SFT |" in card
    assert "| text | 12 | 4 |" in card and "| pictures | 12 | 12 |" in card
    assert "| data | pictures | CC BY 4.0 |" in card
    assert str(run.parent) not in card
    assert (run / "adapter" / "README.md").read_text().startswith("---\nlibrary_name: peft\n")


def test_the_hash_of_the_data_follows_its_texts(run: Path, tokenizer: Path, tmp_path: Path) -> None:
    from vlsafe import ConversationData, Part
    from vlsafe.model_card import data_hash

    def hashed(folder: Path) -> str:
        return data_hash(ConversationData({"text": Part(f"alpaca:{folder / 'text.json'}", repeat=1)}))

    card = (run / "model" / "README.md").read_text()
    assert card.count("`") >= 2 and len(card.split("picture names: `")[1].split("`")[0]) == 64
    one, same, other = (files(tmp_path / n) for n in _made(tmp_path, "one", "same", "other"))
    (other / "text.json").write_text((other / "text.json").read_text().replace("say 3", "say 4"))
    assert hashed(one) == hashed(same) != hashed(other)


def test_the_card_says_whether_its_hash_covers_the_pictures(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlsafe import ConversationData, Part
    from vlsafe.model_card import pictures_hash

    def told(folder: Path, kind: str = "llava", name: str = "pictures") -> str:
        return pictures_hash(ConversationData({"part": Part(f"{kind}:{folder / name}.json", repeat=1)}))

    assert "each picture's bytes: `" in (run / "model" / "README.md").read_text()
    one, same, other = (files(tmp_path / n) for n in _made(tmp_path, "one", "same", "other"))
    picture = other / "pictures" / "3.png"
    picture.write_bytes(picture.with_name("4.png").read_bytes())
    assert told(one) == told(same) != told(other)
    assert told(one, "alpaca", "text") == "There are no pictures."
    monkeypatch.setattr("vlsafe.model_card.READ_AGAIN", 11)
    assert told(one) == "The pictures' bytes are not covered: they are more than 11."
    monkeypatch.undo()
    picture.unlink()
    unchecked = {"kind": "llava", "path": str(other / "pictures.json"), "check_images": False}
    data = ConversationData({"part": Part(unchecked, repeat=1)})
    assert pictures_hash(data) == "The pictures' bytes are not covered: pictures/3.png cannot be read."


def test_an_adapter_is_refused_where_a_model_is_wanted(run: Path) -> None:
    from vlsafe import PretrainedVLLM

    told = run / "adapter" / "adapter_config.json"
    for use in (lambda b: b.config, lambda b: b.processor, lambda b: b.load_model()):
        with pytest.raises(ConfigError, match=r"an adapter, not a whole model; its base is .*--adapter .*--merge"):
            use(PretrainedVLLM(str(run / "adapter")))
    named = run.parent / "of_a_base"
    named.mkdir()
    (named / told.name).write_text(json.dumps(json.loads(told.read_text()) | {"base_model_name_or_path": "org/base"}))
    with pytest.raises(ConfigError, match=r"its base is org/base\..*--model org/base"):
        PretrainedVLLM(str(named)).load_model()


def _made(folder: Path, *names: str) -> tuple[str, ...]:
    for name in names:
        (folder / name).mkdir()
    return names


def test_the_card_shows_the_report_of_the_run(run: Path) -> None:
    report = {
        "judge": "keyword:vlsafe",
        "metrics": {"vlguard[unsafe]/asr": {"before": METRIC, "after": METRIC | {"value": 2.3}}},
    }
    (run / "report.json").write_text(json.dumps(report))
    try:
        card = (exported(run, "with_report", "--merge") / "README.md").read_text()
    finally:
        (run / "report.json").unlink()
    assert "| vlguard[unsafe]/asr | 84.1 [80.6, 87.1] | 2.3 [80.6, 87.1] | 442 |" in card
    assert "judged by keyword:vlsafe" in card


def test_export_gives_the_base_at_0_and_the_run_s_own_model_at_1(run: Path) -> None:
    own = load_file(run / "model" / "model.safetensors")
    whole = load_file(exported(run, "whole", "--merge") / "model.safetensors")
    assert all(torch.equal(whole[name], tensor) for name, tensor in own.items())
    none = load_file(exported(run, "none", "--merge", "--lora-strength", "0") / "model.safetensors")
    half = load_file(exported(run, "half", "--merge", "--lora-strength", "0.5") / "model.safetensors")
    moved = [name for name in own if not torch.equal(own[name], none[name])]
    assert len(moved) >= 14
    assert all(torch.allclose(half[name], (own[name] + none[name]) / 2, atol=1e-6) for name in own)


def test_export_writes_the_adapter_and_shards_as_asked(run: Path) -> None:
    adapter = exported(run, "adapter_alone")
    assert {"adapter_config.json", "adapter_model.safetensors", "projector.safetensors"} <= {
        p.name for p in adapter.iterdir()
    }
    shards = exported(run, "shards", "--merge", "--max-shard-size", "20KB")
    assert len(list(shards.glob("model-*.safetensors"))) > 1


def test_a_strength_without_merging_is_a_usage_error(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    assert main(["export", checkpoint, "--out", str(run / "x"), "--lora-strength", "0.5"]) == 2
    assert "--lora-strength is for --merge" in capsys.readouterr().err
    assert main(["export", checkpoint, "--out", str(run / "x"), "--merge", "--lora-strength", "inf"]) == 2
    assert not (run / "x").exists()


def test_a_licence_is_found_beside_the_thing_or_called_unknown(tmp_path: Path) -> None:
    assert licence_of("HuggingFaceTB/nothing-of-this-name") == UNKNOWN
    assert licence_of(str(tmp_path)) == UNKNOWN
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    assert licence_of(str(tmp_path)) == "apache-2.0"
    inside = tmp_path / "deep" / "data.json"
    inside.parent.mkdir()
    inside.write_text("[]")
    assert licence_of(str(inside)) == UNKNOWN
    (tmp_path / FILE_NAME).write_text(json.dumps({"licence": "MIT"}))
    assert licence_of(str(inside)) == "MIT"
    assert (shown(str(inside)), shown("owner/name")) == ("data.json", "owner/name")


@pytest.mark.slow
def test_evaluate_lays_an_adapter_over_its_base_at_a_strength(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vlsafe import evaluate as verb

    base = exported(run, "base_of_adapter", "--merge", "--lora-strength", "0")
    own, none = load_file(run / "model" / "model.safetensors"), load_file(base / "model.safetensors")
    seen: dict[str, dict[str, torch.Tensor]] = {}
    monkeypatch.setattr(verb, "evaluate", lambda _, responder, *__: seen.update(now=responder.model.state_dict()))
    monkeypatch.setattr(verb, "report", lambda *_: None)
    (run / "text.csv").write_text("goal,target\nsay hi,hi\n")
    (run / "safe.csv").write_text("id,prompt,type,label\n1,say ho,own,safe\n")  # a run needs a benign side
    sets = f"advbench={run / 'text.csv'},xstest={run / 'safe.csv'}"
    ask = ["evaluate", "--model", str(base), "--benchmarks", sets, "--out", str(run / "e")]
    for strength, expected in (("1", own), ("0", none)):
        assert main([*ask, "--adapter", str(run / "adapter"), "--lora-strength", strength]) == 0
        named = load_named(base, seen["now"])
        assert all(torch.equal(named[name], tensor) for name, tensor in expected.items())
    assert main([*ask, "--lora-strength", "0.5"]) == 2


def load_named(folder: Path, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A model's state under the names of its saved file."""
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(folder)
    model.load_state_dict(state)
    model.save_pretrained(folder.parent / "named")
    return load_file(folder.parent / "named" / "model.safetensors")
