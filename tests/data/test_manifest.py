"""A manifest records what may be drawn; a replay draws the same, or names what differs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import VISION, alpaca_file, ask, draw, language_model, llava_file, save_tokenizer

from vlsafe import ConversationData, Part
from vlsafe.__main__ import main
from vlsafe.cli import built
from vlsafe.data.manifest import content_hash, describe
from vlsafe.errors import ConfigError, DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    alpaca_file(tmp_path / "text.json", 9)
    llava_file(tmp_path / "pictures.json", 12)
    return tmp_path


def data(folder: Path, **options: Any) -> ConversationData:
    parts = {
        "text": Part(f"alpaca:{folder / 'text.json'}", share=0.25),
        "pictures": Part(f"llava:{folder / 'pictures.json'}", count=6),
    }
    return ConversationData(**{"parts": parts, "seed": 3} | options)


def written(made: ConversationData, path: Path) -> str:
    path.write_text(json.dumps(describe(made.open(), made.sources, made.parts, made.share_of)))
    return str(path)


def order(made: ConversationData, steps: int = 50) -> list[tuple[str, str]]:
    mixture = made.open()
    return [(name, made.sources[name][record].id) for name, record in map(mixture.at, range(steps))]


def edited(path: Path, change: Callable[[list], Any]) -> None:
    rows = json.loads(path.read_text())
    rows = change(rows) or rows
    path.write_text(json.dumps(rows))


def test_it_lists_what_may_be_drawn(folder: Path) -> None:
    made = data(folder)
    manifest = describe(made.open(), made.sources, made.parts, made.share_of)
    assert (manifest["format"], manifest["seed"], manifest["samples"]) == (1, 3, 8)
    assert {name: len(part["records"]) for name, part in manifest["parts"].items()} == {"text": 9, "pictures": 6}
    drawn = {identity for name, identity in order(made) if name == "pictures"}
    assert set(manifest["parts"]["pictures"]["records"]) == drawn
    assert manifest["parts"]["pictures"]["count"] == 6 and "share" not in manifest["parts"]["pictures"]
    assert manifest["parts"]["text"]["licence"].startswith("not stated")
    for name, identity in order(made):
        record = next(each for each in made.sources[name] if each.id == identity)
        assert manifest["parts"][name]["records"][identity] == content_hash(record)


def test_a_replay_gives_the_same_samples_whatever_the_order_and_number_of_records(folder: Path) -> None:
    first = data(folder)
    expected = order(first)
    manifest = written(first, folder / "manifest.json")
    assert order(data(folder, manifest=manifest)) == expected
    more = {"id": "new", "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}]}
    edited(folder / "pictures.json", lambda rows: [more, *reversed(rows)])
    assert order(data(folder, manifest=manifest)) == expected
    assert order(data(folder)) != expected, "or the test would show nothing"


def test_a_replay_refuses_and_names_what_differs(folder: Path) -> None:
    made = data(folder)
    manifest = written(made, folder / "manifest.json")
    listed = list(json.loads((folder / "manifest.json").read_text())["parts"]["pictures"]["records"])
    repainted, reworded, gone = listed[:3]
    draw(folder / "pictures", f"{repainted[1:]}.png", "purple")

    def change(rows: list[Any]) -> list[Any]:
        rows[int(reworded[1:])]["conversations"][1]["value"] = "other"
        return [row for row in rows if row["id"] != gone]

    edited(folder / "pictures.json", change)
    with pytest.raises(DataError) as caught:
        data(folder, manifest=manifest).open()
    for identity in (repainted, reworded):
        assert f"part 'pictures', record '{identity}': its text or a picture is not what was recorded" in str(
            caught.value
        )
    assert f"part 'pictures', record '{gone}': not in its source any more" in str(caught.value)
    assert "4 problems" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": 4}, "seed is 3, in this config 4"),
        ({"share_of": "tokens"}, "share_of is 'samples', in this config 'tokens'"),
        ({"parts": {"text": Part("alpaca:{}/text.json", repeat=1)}}, "has the parts text, pictures, this config text"),
        (
            {
                "parts": {
                    "text": Part("alpaca:{}/text.json", share=0.5),
                    "pictures": Part("llava:{}/pictures.json", count=6),
                }
            },
            "share of part 'text' is 0.25, in this config 0.5",
        ),
    ],
)
def test_another_request_is_refused(folder: Path, options: dict[str, Any], words: str) -> None:
    manifest = written(data(folder), folder / "manifest.json")
    for part in options.get("parts", {}).values():
        object.__setattr__(part, "source", part.source.replace("{}", str(folder)))
    with pytest.raises(ConfigError, match=words):
        data(folder, manifest=manifest, **options).open()


@pytest.mark.parametrize("content", [None, "", "[]", '{"format": 99}'])
def test_what_is_no_manifest_is_refused(folder: Path, content: str | None) -> None:
    path = folder / "manifest.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=r"manifest\.json.*"):
        data(folder, manifest=str(path)).open()


def test_another_order_of_a_later_version_is_refused(folder: Path) -> None:
    manifest = written(data(folder), folder / "manifest.json")
    edited(Path(manifest), lambda content: content.update(order_sha256="0" * 64))
    with pytest.raises(DataError, match="put the same records in another order; replay it with that version"):
        data(folder, manifest=manifest).open()


def test_the_hash_is_of_words_and_pictures_not_of_names(tmp_path: Path) -> None:
    red, again, blue = draw(tmp_path, "a.png"), draw(tmp_path, "b.png"), draw(tmp_path, "c.png", "blue")
    hashes = [content_hash(ask("q", "a", picture, identity=picture.name)) for picture in (red, again, blue)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert content_hash(ask("q", "a")) not in hashes
    assert content_hash(ask("q", "b")) != content_hash(ask("q", "a"))


def test_the_command_writes_what_fit_replays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With shares of tokens, for which it needs the model's tokenizer and no weights."""
    backbone = {
        "vision_encoder": "clip",
        "language_model": language_model(save_tokenizer(folder / "tokenizer")),
        "vision_weights": VISION["clip"],
    }
    parts = {
        "text": {"source": f"alpaca:{folder / 'text.json'}", "share": 0.5},
        "pictures": {"source": f"llava:{folder / 'pictures.json'}", "share": 0.5},
    }
    told = {
        "model": {
            "class_path": "vlsafe.SafetyFineTuning",
            "init_args": {
                "backbone": {"class_path": "vlsafe.ComposedVLLM", "init_args": backbone},
                "components": {"projector": {"train": "full", "learning_rate": 1e-3}},
            },
        },
        "data": {
            "class_path": "vlsafe.ConversationData",
            "init_args": {"parts": parts, "samples": 40, "share_of": "tokens"},
        },
        "trainer": {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False},
    }
    config = folder / "config.yaml"
    config.write_text(json.dumps(told))
    asked = ["--config", str(config), f"--run_dir={folder / 'run'}"]
    assert main(["data", "manifest", *asked, "--out", str(folder / "out" / "manifest.json")]) == 0
    assert "12 records" in capsys.readouterr().out
    manifest = folder / "out" / "manifest.json"
    weights = {name: part["weight"] for name, part in json.loads(manifest.read_text())["parts"].items()}
    assert weights["text"] != weights["pictures"], "answers differ in length, so samples differ in number"
    runs = [built(asked), built([*asked, f"--data.init_args.manifest={manifest}"])]
    opened = [run.datamodule.open(run.model.backbone) for run in runs]
    drawn = [
        [(name, run.datamodule.sources[name][record].id) for name, record in map(mixture.at, range(80))]
        for run, mixture in zip(runs, opened, strict=True)
    ]
    assert drawn[0] == drawn[1]
    draw(folder / "pictures", "0.png", "purple")
    changed = built([*asked, f"--data.init_args.manifest={manifest}"])
    with pytest.raises(DataError, match="part 'pictures', record 'p0'"):
        changed.datamodule.open(changed.model.backbone)
