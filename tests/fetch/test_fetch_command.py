"""The verb: names, exit statuses, what goes to which stream."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fetch.loopback import Site
from vlsafe.__main__ import main
from vlsafe.fetch import command
from vlsafe.fetch.asset import Asset, Part
from vlsafe.fetch.catalogue import ASSETS, CATALOGUE
from vlsafe.table import Table


@pytest.fixture
def two(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A catalogue whose ``xstest`` and ``advbench`` come from loopback; the second is missing there."""
    site.files["/prompts.csv"] = b"id,prompt\n"
    made = {
        name: Asset(name, "url", "https://example.org", "MIT", parts=(Part(f"{site.address}/{file}", file),))
        for name, file in (("xstest", "prompts.csv"), ("advbench", "goals.csv"))
    }
    monkeypatch.setattr(command, "CATALOGUE", Table("asset", **made))
    return site


def test_paths_on_standard_output_and_the_rest_on_standard_error(
    two: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["xstest", "--cache", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert out == f"xstest  {tmp_path / 'xstest'}\n"
    assert "xstest: ready" in err


def test_one_failure_does_not_stop_the_others(two: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["advbench", "xstest", "--cache", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == f"xstest  {tmp_path / 'xstest'}\n"
    assert "error: advbench:" in err and "404" in err


def test_an_interruption_says_how_to_go_on(
    two: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*args: object) -> Path:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("went on")

    monkeypatch.setattr("vlsafe.fetch.fetching.fetch", interrupted)
    assert main(["fetch", "xstest", "--cache", str(tmp_path)]) == 130
    assert "run the same command again to go on from here" in capsys.readouterr().err


def test_unknown_names_are_all_reported_before_anything_is_fetched(
    two: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["xstest", "smal", "vlgard", "--cache", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "'smal': did you mean 'small'?" in err and "'vlgard': did you mean 'vlguard'?" in err
    assert two.requests == []


def test_nothing_named_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main([])
    assert stopped.value.code == 2
    assert "name something to fetch, such as `small`" in capsys.readouterr().err


def test_the_list_names_every_asset_with_its_terms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "xstest").mkdir()
    (tmp_path / "xstest/fetched.json").write_text("{}")
    assert command.main(["--list", "--cache", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    first_words = [line.split(" ")[0] for line in lines]
    assert all(asset.name in first_words for asset in ASSETS)
    row = next(line for line in lines if line.startswith("xstest "))
    assert "CC BY 4.0" in row and "11783fb294ed" in row and row.rstrip().endswith("yes")
    assert any("GATED" in line for line in lines)
    assert any(line.strip().startswith("small: smollm2-135m-instruct") for line in lines)


def test_nothing_heavy_is_imported_to_list() -> None:
    heavy = ("torch", "transformers", "huggingface_hub", "requests")
    code = (
        "import sys; from vlsafe.fetch.command import main; import vlsafe.fetch.locate; main(['--list']); "
        f"sys.exit(str([name for name in {heavy} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"


def test_every_name_of_the_catalogue_is_reachable() -> None:
    assert len(CATALOGUE.names()) == len(ASSETS)
