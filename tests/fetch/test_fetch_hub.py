"""The hub kind against a small stand-in for the hub on loopback: the real client, the project's words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest
from rich.progress import Progress

from tests.fetch.loopback import COMMIT, Hub
from vlsafe.fetch.asset import Asset, FetchError, Part
from vlsafe.fetch.fetching import fetch

DATA = Asset("thing", "hub-dataset", "lab/thing", "MIT", gated="Agree to research use.")
MODEL = replace(DATA, kind="hub-model", gated="")


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_snapshot_and_its_commit(hub: Hub, tmp_path: Path, progress: Progress) -> None:
    hub.files = {"data/a.json": b"[]", "README.md": b"about"}
    folder = fetch(DATA, tmp_path, progress)
    assert names_in(folder) == {"data/a.json", "README.md", "fetched.json"}
    assert json.loads((folder / "fetched.json").read_text())["facts"] == {"commit": COMMIT}


def test_only_the_parts_asked_for(hub: Hub, tmp_path: Path, progress: Progress) -> None:
    hub.files = {"train.json": b"[]", "huge.bin": b"0" * 1000}
    folder = fetch(replace(DATA, parts=(Part("*.json"),)), tmp_path, progress)
    assert names_in(folder) == {"train.json", "fetched.json"}


@pytest.mark.parametrize(
    ("files", "kept"),
    [
        ({"model.safetensors", "pytorch_model.bin", "tf_model.h5"}, {"model.safetensors"}),
        ({"pytorch_model.bin", "tf_model.h5"}, {"pytorch_model.bin"}),
    ],
)
def test_weights_come_in_one_format(
    hub: Hub, tmp_path: Path, progress: Progress, files: set[str], kept: set[str]
) -> None:
    hub.files = {name: name.encode() for name in files}
    assert names_in(fetch(MODEL, tmp_path, progress)) == {*kept, "fetched.json"}


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((403, "GatedRepo"), r"datasets/lab/thing is gated.*Agree to research use\..*`hf auth login`, or set HF_TOKEN"),
        ((401, "RepoNotFound"), r"moved or removed, or it is private or gated\..*Agree to research use\..*HF_TOKEN"),
        ((404, "RevisionNotFound"), "has no revision main"),
        ((400, "Other"), "could not be fetched .* run the same command again"),
    ],
)
def test_refusals_say_what_to_do(
    hub: Hub, tmp_path: Path, progress: Progress, refusal: tuple[int, str], words: str
) -> None:
    hub.refusal = refusal
    with pytest.raises(FetchError, match=words):
        fetch(DATA, tmp_path, progress)
    assert not (tmp_path / "thing").exists()


def test_no_network(hub: Hub, tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(FetchError, match=r"could not be fetched .*Check the network"):
        fetch(DATA, tmp_path, progress)


def test_offline_mode(hub: Hub, tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FetchError, match="HF_HUB_OFFLINE is set; unset it"):
        fetch(DATA, tmp_path, progress)
