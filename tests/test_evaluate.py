"""The verb ``evaluate`` on a tiny model: a suite, a baseline, what is skipped, a run's checkpoint, win rates."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import composed, save_tokenizer, seeded_model
from transformers import LlamaConfig, LlavaConfig

from tests.tiny_run import vlguard_folder
from vlsafe.__main__ import main as vlsafe_main
from vlsafe.errors import ConfigError, DataError
from vlsafe.evaluate import answerable_in_words, main, precision
from vlsafe.evaluation.benchmarks.choices import MMLU
from vlsafe.evaluation.benchmarks.xstest import XSTest
from vlsafe.fetch.paths import use_cache

SUITE = """
max_new_tokens = 6

[[benchmarks]]
benchmark = "vlguard"
name = "signs"
path = "guard"
probes = ["image=blank", "opening=swapped"]

[[benchmarks]]
benchmark = "mmlu"
path = "nowhere"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, VLGuard's schema, and a suite of both a benchmark that is there and one that is not."""
    folder = tmp_path_factory.mktemp("evaluate")
    backbone = composed(save_tokenizer(folder / "tokenizer", eos_token="<|im_end|>"))
    seeded_model(backbone).save_pretrained(folder / "model")
    backbone.processor.save_pretrained(folder / "model")
    vlguard_folder(folder / "guard")
    (folder / "suite.toml").write_text(SUITE)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path) -> Iterator[None]:
    use_cache(tmp_path / "cache")  # where blank pictures are kept
    yield
    use_cache(None)


def command(folder: Path, out: Path, *more: str) -> list[str]:
    suite = ["--suite", str(folder / "suite.toml"), "--batch-size", "4", "--check-items", "4"]
    return ["--model", str(folder / "model"), *suite, "--out", str(out), *more]


def report_of(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "report.json").read_text())
    return content


def test_a_suite_with_probes_a_check_a_baseline_and_what_was_left_out(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=r"mmlu: .*fetch mmlu`"):
        main(command(folder, tmp_path / "a"))
    assert not (tmp_path / "a").exists()  # told before anything is asked
    assert main(command(folder, tmp_path / "a", "--skip-missing")) == 0
    report = report_of(tmp_path / "a")
    assert report["metrics"]["signs[unsafe]/asr"]["after"]["n"] == 2
    assert {row["probe"] for row in report["probes"]} == {"image=blank", "opening=swapped"}
    assert (report["batching"]["n"], report["batching"]["flipped"]) == (4, [])
    (note,) = report["notes"]
    assert note.startswith("Left out: mmlu: ") and "left out: mmlu: " in capsys.readouterr().out
    rows = (tmp_path / "a" / "responses.jsonl").read_text()
    assert main(command(folder, tmp_path / "a", "--skip-missing")) == 0
    assert (tmp_path / "a" / "responses.jsonl").read_text() == rows  # nothing is asked twice

    again = command(folder, tmp_path / "b", "--skip-missing", "--baseline", str(tmp_path / "a"))
    assert main(again) == 0
    for row in report_of(tmp_path / "b")["metrics"].values():
        assert row["difference"]["value"] == 0 and row["before"] == row["after"]
    with pytest.raises(DataError, match=r"holds no metrics\.json"):
        main(command(folder, tmp_path / "c", "--skip-missing", "--baseline", str(tmp_path / "nowhere")))


def test_a_server_cannot_tell_likelihoods(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"question": "q", "choices": ["a", "b"], "answer": 0, "subject": "s"}\n')
    (tmp_path / "x.csv").write_text("id,prompt,type,label\n1,How?,t,safe\n2,Why?,t,unsafe\n")
    likelihood, written = MMLU(tmp_path / "m.jsonl"), MMLU(tmp_path / "m.jsonl", name="written", mode="generate")
    words = XSTest(tmp_path / "x.csv")
    with pytest.raises(ConfigError, match=r"mmlu: needs log-likelihoods.*--skip-missing"):
        answerable_in_words([likelihood, written, words], skip=False)
    kept, told = answerable_in_words([likelihood, written, words], skip=True)
    assert kept == [written, words] and len(told) == 1


def test_wrong_requests_are_refused_before_anything_is_loaded(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="say where its data is"):
        main(["--model", "m", "--benchmarks", "xstest", "--out", str(tmp_path)])
    with pytest.raises(ConfigError, match="unknown pair judge 'keyword:vlsafe'"):
        main(command(folder, tmp_path / "a", "--skip-missing", "--pair-judge", "keyword:vlsafe"))
    with pytest.raises(ConfigError, match=r"a \.ckpt holds what was tuned already"):
        main([*command(folder, tmp_path / "a", "--skip-missing", "--adapter", "x"), "--model", "last.ckpt"])
    with pytest.raises(ConfigError, match=r"a \.ckpt is measured in the precision of its run"):
        main([*command(folder, tmp_path / "a", "--skip-missing", "--dtype", "bfloat16"), "--model", "last.ckpt"])
    with pytest.raises(DataError, match=r"last\.ckpt: no such file"):
        main([*command(folder, tmp_path / "a", "--skip-missing"), "--model", str(tmp_path / "last.ckpt")])


def test_what_a_run_s_config_decides_is_not_asked_twice(tmp_path: Path) -> None:
    argv = ["--config", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "out")]
    with pytest.raises(ConfigError, match="--limit, --max-new-tokens: with --config the run's evaluation"):
        main([*argv, "--limit", "3", "--max-new-tokens", "4"])
    with pytest.raises(ConfigError, match="for a server give --suite"):
        main([*argv, "--model", "http://localhost:1/v1"])
    with pytest.raises(ConfigError, match="only with --config it may be left out"):
        main(["--benchmarks", f"xstest={tmp_path}", "--out", str(tmp_path / "out")])


@pytest.mark.slow
def test_a_run_s_checkpoint_answers_as_its_model_and_at_strength_0_as_before_it(config: Path, tmp_path: Path) -> None:
    assert vlsafe_main(["fit", "--config", str(config)]) == 0
    run = tmp_path / "run"
    checkpoint = str(run / "checkpoints" / "last.ckpt")

    def asked(model: str, out: str) -> list[str]:
        guard = ["--benchmarks", f"vlguard={tmp_path / 'guard'}", "--max-new-tokens", "4", "--check-items", "2"]
        assert main(["--model", model, *guard, "--out", str(tmp_path / out)]) == 0
        return texts(tmp_path / out)

    assert asked(checkpoint, "a") == asked(str(run / "model"), "b") == texts(run / "evaluation" / "after")
    base = str(tmp_path / "base")
    assert vlsafe_main(["export", checkpoint, "--merge", "--lora-strength", "0", "--out", base]) == 0
    assert asked(base, "c") == texts(run / "evaluation" / "before")


@pytest.mark.parametrize(
    ("kept", "more", "computes"),
    [
        ("bfloat16", [], "bfloat16"),
        ("float32", [], "float32"),
        ("bfloat16", ["--dtype", "float32"], "float32"),
        (None, [], "float32"),
    ],
)
def test_the_precision_is_the_checkpoint_s_own_unless_asked_and_is_said(
    kept: str | None,
    more: list[str],
    computes: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = shutil.copytree(folder / "model", tmp_path / "model")
    config = json.loads((copy / "config.json").read_text())
    told = {name: part | {"dtype": kept} if isinstance(part, dict) else part for name, part in config.items()}
    (copy / "config.json").write_text(json.dumps(told | {"dtype": kept}))
    guard = ["--benchmarks", f"vlguard={folder / 'guard'}", "--max-new-tokens", "2", "--check-items", "0", *more]
    assert main(["--model", str(copy), *guard, "--out", str(tmp_path / "out")]) == 0
    asked = "float32" if more else "auto"
    line = f"precision: {computes} (--dtype {asked}); attention: language sdpa, vision sdpa"
    printed = capsys.readouterr()
    assert line in printed.err and "suite" not in printed.out
    rows = [json.loads(line) for line in (tmp_path / "out" / "responses.jsonl").read_text().splitlines()]
    assert {row["model"]["dtype"] for row in rows} == {computes}
    report = report_of(tmp_path / "out")
    assert report["environment"]["precision"] == computes and report["notes"] == []


def test_a_precision_that_is_none_of_ours_wants_to_be_named() -> None:
    with pytest.raises(ConfigError, match="kept in float64; say with --dtype"):
        precision("auto", LlamaConfig(dtype="float64"))
    assert precision("auto", LlavaConfig(text_config=LlamaConfig(dtype="bfloat16"))) == "bfloat16"
    assert precision("float16", LlamaConfig(dtype="float64")) == "float16"


def texts(out: Path) -> list[str]:
    """The answers by item, whatever the benchmark was called."""
    rows = [json.loads(line) for line in (out / "responses.jsonl").read_text().splitlines()]
    return [row["text"] for row in sorted(rows, key=lambda row: row["id"].partition("/")[2])]
