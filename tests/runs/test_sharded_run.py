"""A whole run by two processes that share one model leaves what a run by one leaves: answers, metrics, probes, exports,
predictions, and a checkpoint folder that one process reads."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.runs.varied_run import on_two, varied_run
from tests.strategies.processes import together as in_processes
from tests.tiny import llava_file
from tests.torchrun import begun, done
from vlsafe import PretrainedVLLM
from vlsafe.__main__ import main
from vlsafe.evaluation.records import Response, read_jsonl
from vlsafe.models.responder import weights_fingerprint

pytestmark = pytest.mark.slow
RUNS = ("one", "fsdp2", "ddp")
ITEMS = 11


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run by one process and by two, as ``python -m vlsafe fit`` starts them."""
    folder = tmp_path_factory.mktemp("sharded")
    content = varied_run(folder)
    content["data"]["init_args"]["prompts"] = f"llava:{llava_file(folder / 'prompts.json', 5)}"
    for name in RUNS:
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content if name == "one" else on_two(content, name)))
        status, words = done(begun(1, ["fit", "--config", f"{name}.yaml", "--run_dir", name], folder))
        assert status == 0, words
    return folder


def rows(run: Path, side: str) -> list[Response]:
    assert not list((run / "evaluation" / side).glob(".*.part-*"))
    return read_jsonl(run / "evaluation" / side / "responses.jsonl", Response)


def metrics(run: Path, side: str) -> Any:
    return json.loads((run / "evaluation" / side / "metrics.json").read_text())["metrics"]


def test_the_items_put_two_processes_out_of_step(folder: Path) -> None:
    """Else the tests below would show nothing."""
    found = rows(folder / "one", "before")
    assert len(found) == ITEMS and ITEMS % 2
    written = [row for row in found if row.n_tokens]
    assert len({row.text for row in written}) > len(written) / 2 and len({row.n_tokens for row in written}) > 1
    assert {row.image_sha256 != "" for row in found} == {True, False}
    after = {row.id: row.text for row in rows(folder / "one", "after")}
    assert any(after[row.id] != row.text for row in written)


@pytest.mark.parametrize("name", RUNS[1:])
@pytest.mark.parametrize("side", ["before", "after"])
def test_answers_and_metrics_are_those_of_one_process(folder: Path, side: str, name: str) -> None:
    one, two = ({row.id: row for row in rows(folder / each, side)} for each in ("one", name))
    assert len(rows(folder / name, side)) == ITEMS
    assert {i: (row.text, row.n_tokens, row.finish) for i, row in two.items()} == {
        i: (row.text, row.n_tokens, row.finish) for i, row in one.items()
    }
    assert metrics(folder / name, side) == metrics(folder / "one", side)
    if side == "before":  # the very weights; after training, sums over processes were added in another order
        assert {row.key for row in two.values()} == {row.key for row in one.values()}


@pytest.mark.parametrize("name", RUNS[1:])
def test_what_was_measured_after_is_what_was_exported(folder: Path, name: str) -> None:
    """A new evaluation of the folder, by one process, gives every answer again, of the same weights."""
    run, after = folder / name, {row.id.partition("/")[2]: row for row in rows(folder / name, "after")}
    argv = ["evaluate", "--model", str(run / "model"), "--out", str(folder / f"again-{name}"), "--check-items", "0"]
    argv += ["--benchmarks", f"vlguard={folder / 'guard'}", "--max-new-tokens", "12", "--batch-size", "2"]
    assert main(argv) == 0
    for row in read_jsonl(folder / f"again-{name}" / "responses.jsonl", Response):
        expected = after[row.id.partition("/")[2]]
        assert row.text == expected.text
        assert all(row.model[key] == expected.model[key] for key in ("weights", "dtype", "template", "image_fit"))


def test_bf16_mixed_is_measured_in_bfloat16(folder: Path) -> None:
    """The evaluation before gathers first: what it leaves must not change how gradients are reduced afterwards."""
    content = yaml.safe_load((folder / "fsdp2.yaml").read_text())
    content["trainer"] |= {"precision": "bf16-mixed", "callbacks": []}
    content["model"]["init_args"]["backbone"]["init_args"]["dtype"] = "bfloat16"
    (folder / "bf16.yaml").write_text(yaml.safe_dump(content))
    status, words = done(begun(1, ["fit", "--config", "bf16.yaml", "--run_dir", "bf16"], folder))
    assert status == 0, words
    for side in ("before", "after"):
        assert {row.model["dtype"] for row in rows(folder / "bf16", side)} == {"bfloat16 by autocast"}
    exported = load_file(folder / "bf16" / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in exported.values()} == {torch.bfloat16}
    assert json.loads((folder / "bf16" / "model" / "config.json").read_text())["dtype"] == "bfloat16"
    model = PretrainedVLLM(str(folder / "bf16" / "model"), dtype="bfloat16").load_model()
    assert {row.model["weights"] for row in rows(folder / "bf16", "after")} == {weights_fingerprint(model)}


def fit_as_on_gpus(folder: Path) -> None:
    """Lightning's loops use inference mode unless the processes talk by gloo, which is hidden from them here."""
    with patch("lightning.pytorch.loops.utilities._distributed_is_initialized", return_value=False):
        argv = ["fit", "--config", str(folder / "fsdp2.yaml"), "--run_dir", str(folder / "sanity")]
        assert main([*argv, "--trainer.callbacks=null", "--evaluation.benchmarks=[]"]) == 0


def test_a_validation_before_training_leaves_weights_that_can_be_trained(folder: Path) -> None:
    in_processes(2, fit_as_on_gpus, folder)
    assert (folder / "sanity" / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize("name", RUNS[1:])
@pytest.mark.parametrize("file", ["model/model", "adapter/adapter_model", "adapter/projector"])
def test_exports_are_those_of_one_process(folder: Path, file: str, name: str) -> None:
    one, two = (load_file(folder / each / f"{file}.safetensors") for each in ("one", name))
    assert one.keys() == two.keys()
    for key, tensor in one.items():
        assert tensor.dtype == two[key].dtype and torch.allclose(tensor, two[key], atol=1e-5), key
    beside = "adapter/adapter_config.json" if file.startswith("adapter") else "model/config.json"
    assert (folder / "one" / beside).read_text() == (folder / name / beside).read_text()


@pytest.mark.parametrize("name", RUNS[1:])
def test_probes_see_what_one_process_sees(folder: Path, name: str) -> None:
    one, two = probed(folder / "one"), probed(folder / name)
    assert len(one) == len(two) == 6  # two probes at steps 0, 2 and 4
    for expected, found in zip(one, two, strict=True):
        assert found == pytest.approx(expected, abs=1e-4)
    assert any(row.get("kl/benign", 0) > 1e-4 for row in two)
    margins = [(folder / each / "evaluation" / "probe" / "margins.jsonl").read_text() for each in ("one", name)]
    assert [json.loads(line)["id"] for line in margins[0].splitlines()] == [
        json.loads(line)["id"] for line in margins[1].splitlines()
    ]


def probed(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open() as file:
        told = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    return [row for row in told if any(key.startswith(("probe/", "margin/")) for key in row)]


@pytest.mark.parametrize("name", RUNS[1:])
def test_predictions_are_in_order_and_each_once(folder: Path, name: str) -> None:
    """Five prompts for two processes, the second time over what another number of processes left behind."""
    run = folder / f"predicted-{name}"
    run.mkdir()
    (run / ".predictions.jsonl.part-00007").write_text("left by another run\n")
    for config in ("one", name):
        status, words = done(begun(1, ["predict", "--config", f"{config}.yaml", "--run_dir", str(run)], folder))
        assert status == 0, words
        found = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
        assert [row["id"] for row in found] == [f"p{number}" for number in range(5)]
        if config == "one":
            alone = found
    assert found == alone and len({row["text"] for row in found}) == 5
    assert not list(run.glob(".predictions*"))


def test_one_process_exports_and_evaluates_a_checkpoint_folder(folder: Path) -> None:
    run = folder / "fsdp2"
    checkpoint = run / "checkpoints" / "last.ckpt"
    assert checkpoint.is_dir() and len(list(checkpoint.glob("shard-*.safetensors"))) == 2
    assert main(["export", str(checkpoint), "--merge", "--out", str(folder / "exported")]) == 0
    one, two = (load_file(at / "model.safetensors") for at in (run / "model", folder / "exported"))
    assert one.keys() == two.keys() and all(torch.allclose(one[key], two[key], atol=1e-6) for key in one)
    argv = ["evaluate", "--model", f"{checkpoint}/", "--out", str(folder / "of-folder"), "--check-items", "0"]
    assert main([*argv, "--benchmarks", f"vlguard={folder / 'guard'}", "--max-new-tokens", "12"]) == 0
    again = read_jsonl(folder / "of-folder" / "responses.jsonl", Response)
    answered = {row.id.partition("/")[2]: row.text for row in rows(run, "after")}
    assert [row.text for row in again] == [answered[row.id.partition("/")[2]] for row in again]


def test_a_damaged_checkpoint_folder_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = folder / "fsdp2" / "checkpoints" / "torn.ckpt"
    (folder / "fsdp2" / "checkpoints" / "last.ckpt").rename(checkpoint)
    try:
        content = (checkpoint / "shard-00001.safetensors").read_bytes()
        (checkpoint / "shard-00001.safetensors").write_bytes(content[:-4])
        assert main(["export", str(checkpoint), "--merge", "--out", str(folder / "never")]) == 1
        assert "shard-00001.safetensors does not match its checksum" in capsys.readouterr().err
        (checkpoint / "shard-00001.safetensors").write_bytes(content)
    finally:
        checkpoint.rename(checkpoint.with_name("last.ckpt"))


def test_test_measures_a_sharded_model(folder: Path) -> None:
    """And goes on with the loss on held-out data, which gathers blocks in its own way."""
    argv = ["test", "--config", "fsdp2.yaml", "--run_dir", "tested", "--ckpt_path", "fsdp2/checkpoints/last.ckpt"]
    status, words = done(begun(1, argv, folder))
    assert status == 0 and "test/loss" in words, words
    one, two = ({row.id: row.text for row in rows(folder / n, s)} for n, s in (("fsdp2", "after"), ("tested", "test")))
    assert one == two
