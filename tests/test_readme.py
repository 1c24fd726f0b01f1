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
