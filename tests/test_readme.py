"""What the documents tell people to type works: make targets exist, verbs and their options exist, configs parse."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from vlsafe.__main__ import main
from vlsafe.verbs import VERBS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = (["python", "-m", "vlsafe"], ["vlsafe"])


def commands(page: Path) -> list[str]:
    """The lines of a page's ```console blocks, with continued lines joined; `#` starts a remark."""
    blocks = re.findall(r"^```console\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if shlex.split(line, comments=True)]


def asked_of_vlsafe(command: str) -> list[str] | None:
    words = shlex.split(command, comments=True)
    return next((words[len(program) :] for program in PROGRAMS if words[: len(program)] == program), None)


WRITTEN = [(page.name, command) for page in PAGES for command in commands(page)]
ASKED = sorted({command for _, command in WRITTEN if asked_of_vlsafe(command) is not None})
MADE = sorted({command for _, command in WRITTEN if shlex.split(command)[0] == "make"})


def test_the_readme_shows_both_make_targets_and_the_door() -> None:
    readme = [command for page, command in WRITTEN if page == "README.md"]
    assert "make quickstart" in readme and "make test" in readme
    assert any(asked_of_vlsafe(command) for command in readme)


@pytest.mark.parametrize("command", MADE)
def test_make_targets_exist(command: str) -> None:
    targets = shlex.split(command, comments=True)[1:]
    done = subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ASKED)
def test_commands_parse(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Lightning's verbs resolve their whole config; the others must know every option that is shown."""
    monkeypatch.chdir(ROOT)
    asked = asked_of_vlsafe(command) or ["--help"]
    if asked[0].startswith("-"):
        assert main(asked) == 0
        return
    assert asked[0] in VERBS, command
    if VERBS[asked[0]].passes_name:
        assert _status([*asked, "--print_config"]) == 0, capsys.readouterr().err
        return
    assert _status([asked[0], "--help"]) == 0
    known = set(re.findall(r"--?[a-z][\w-]*", capsys.readouterr().out))
    assert {word.partition("=")[0] for word in asked if word.startswith("-")} <= known, command


def _status(argv: list[str]) -> object:
    try:
        return main(argv)
    except SystemExit as leaving:  # how the parsers end after printing
        return leaving.code or 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def examples(page: Path) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))


def test_the_parts_shown_in_the_guide_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    from vlsafe.data.sources import SOURCES, open_source
    from vlsafe.errors import DataError
    from vlsafe.evaluation.benchmarks import BENCHMARKS
    from vlsafe.evaluation.judges import JUDGES
    from vlsafe.evaluation.records import Response
    from vlsafe.models.encoders import ENCODERS

    for table in (SOURCES, ENCODERS, BENCHMARKS, JUDGES):
        monkeypatch.setattr(table, "_parts", dict(table._parts))  # what the guide adds goes away again
    exec(compile(examples(ROOT / "docs" / "adding_a_part.md"), "adding_a_part.md", "exec"), {"__name__": "guide"})

    Image.new("RGB", (4, 4)).save(tmp_path / "cat.png")
    records = tmp_path / "captions.json"
    records.write_text('[{"id": "1", "picture": "cat.png", "caption": "A cat."}]')
    (conversation,) = open_source(f"captions:{records}")
    assert conversation.turns[1].text == "A cat." and conversation.images[0].name == "cat.png"
    records.write_text('[{"id": "1", "picture": "../cat.png"}]')
    with pytest.raises(DataError, match=r"(?s)2 problems.*'\.\./cat\.png'.*'caption' is missing"):
        open_source(f"captions:{records}")

    size = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    encoder = ENCODERS["vit"](size)
    pixels = encoder.image_processor("pad")(Image.new("RGB", (20, 30)), return_tensors="pt")["pixel_values"]
    tokens = encoder.load()(pixels).last_hidden_state.shape[1]
    assert tokens - encoder.class_tokens == (28 // 14) ** 2

    items = BENCHMARKS["chores"]().items()
    assert {item.side for item in items} == {"benign"}
    answer = Response(
        key="k", id=items[0].id, benchmark="chores", variant="", question=items[0].question, text="No, I will not.",
        prompt="", n_tokens=4, finish="eos", error="", image_sha256="", decoding={}, model={},
    )  # fmt: skip
    (verdict,) = JUDGES["first-word"]().judge([answer], {item.id: item for item in items})
    assert verdict.label == "refuse"
    metrics = BENCHMARKS["chores"].metrics(items[:1], {answer.id: answer}, {answer.id: verdict})
    assert metrics["chores/over_refusal"].value == 100
