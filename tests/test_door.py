"""The command line's door: static help, dispatch, and what each kind of failure leaves behind."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import vlsafe
from vlsafe import verbs
from vlsafe.__main__ import main
from vlsafe.errors import ConfigError, DataError
from vlsafe.verbs import VERBS, Verb

ROOT = Path(__file__).parents[1]
HERE = __name__


def door(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "vlsafe", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_help_answers_within_a_second_and_lists_every_verb() -> None:
    begin = time.perf_counter()
    done = door("--help")
    assert time.perf_counter() - begin < 1.0
    assert done.returncode == 0
    assert done.stderr == ""
    for name, verb in VERBS.items():
        lines = [line for line in done.stdout.splitlines() if line.split()[:1] == [name]]
        assert len(lines) == 1 and verb.summary in lines[0]


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from vlsafe.__main__ import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    roots = {name.partition(".")[0] for name in done.stderr.split()}
    assert not roots & {"torch", "lightning", "transformers", "numpy", "jsonargparse", "rich", "PIL", "requests"}


@pytest.mark.parametrize("argv", [[], ["-h"], ["--help"], ["help"]])
def test_help_in_all_its_spellings(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    assert capsys.readouterr().out.startswith("usage: vlsafe VERB")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vlsafe {vlsafe.__version__}\n"


def test_an_unknown_verb_is_a_usage_error_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evalute", "--model", "x"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: unknown verb 'evalute'. Did you mean 'evaluate'?")


@pytest.mark.parametrize("name", VERBS)
def test_help_of_every_verb_says_what_it_reads_and_writes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main([name, "--help"])
    except SystemExit as leaving:  # argparse's way to end after printing help
        status = leaving.code or 0
    out = capsys.readouterr().out
    assert status == 0
    assert name in out.splitlines()[0]  # the usage line
    assert re.search(r"reads\b.+\bwrites\b", out, re.IGNORECASE | re.DOTALL)


@pytest.mark.parametrize("name", ["plan", "preview"])
def test_help_says_how_a_config_is_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert f"vlsafe {name} --config C" in capsys.readouterr().out


# A verb of this module's own, so that the door is tried without any real verb behind it.


def _record(argv: list[str]) -> int | None:
    print("got", *argv)
    return None


def _refuse(argv: list[str]) -> int:
    raise ConfigError(["ratio sums to 1.2", "unknown part 'x'"])


def _bad_data(argv: list[str]) -> int:
    raise DataError("train.json, record 3: no id")


def _interrupt(argv: list[str]) -> int:
    raise KeyboardInterrupt


def _break(argv: list[str]) -> int:
    raise ZeroDivisionError("a defect")


def _three(argv: list[str]) -> int:
    return 3


def _broken_elsewhere(argv: list[str]) -> int:
    raise BrokenPipeError("a server hung up")


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch):
    def install(function: str, **options: bool) -> str:
        monkeypatch.setitem(verbs.VERBS, "try", Verb("for tests", "", f"{HERE}:{function}", **options))
        return "try"

    return install


def test_a_verb_gets_what_follows_its_name(verb, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb("_record"), "--a.b=c", "--help"]) == 0
    assert capsys.readouterr().out == "got --a.b=c --help\n"


def test_a_function_that_serves_several_verbs_gets_the_name_too(verb, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb("_record", passes_name=True), "x"]) == 0
    assert capsys.readouterr().out == "got try x\n"


def test_a_configuration_error_is_words_without_a_traceback(verb, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb("_refuse")]) == 2
    assert capsys.readouterr() == ("", "error: 2 problems:\n  - ratio sums to 1.2\n  - unknown part 'x'\n")


def test_a_data_error_has_status_1(verb, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb("_bad_data")]) == 1
    assert capsys.readouterr().err == "error: train.json, record 3: no id\n"


def test_the_status_of_a_verb_is_kept(verb) -> None:
    assert main([verb("_three")]) == 3


def test_interrupted_is_130(verb, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb("_interrupt")]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_defect_keeps_its_traceback(verb) -> None:
    with pytest.raises(ZeroDivisionError):
        main([verb("_break")])


def test_a_broken_pipe_that_is_not_standard_output_is_not_hidden(verb) -> None:
    with pytest.raises(BrokenPipeError, match="a server hung up"):
        main([verb("_broken_elsewhere")])


def test_a_reader_that_goes_away_is_no_error_message() -> None:
    code = "import sys; from vlsafe.__main__ import main; sys.stdin.read(); sys.exit(main(['--help']))"
    writer = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert writer.stdin and writer.stdout and writer.stderr
    writer.stdout.close()  # gone before the first byte is written
    writer.stdin.close()
    errors = writer.stderr.read().decode()
    assert writer.wait() == 1
    assert errors == ""
