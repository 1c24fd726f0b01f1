from __future__ import annotations

import getpass
import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import vlsafe
from vlsafe import doctor, environment
from vlsafe.fetch.catalogue import GROUPS


def test_describe_tells_what_a_result_may_depend_on() -> None:
    import torch

    facts = environment.describe()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["vlsafe"] == vlsafe.__version__
    assert facts["python"] == platform.python_version()
    assert facts["packages"]["torch"] == torch.__version__
    assert facts["cpu"]["cores"] >= 1 and facts["cpu"]["memory_gib"] > 0
    assert len(facts["gpu"]["devices"]) == torch.cuda.device_count()
    assert facts["attention"]["sdpa"] is True


def test_describe_names_nobody_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "s" * 30)
    text = json.dumps(environment.describe())
    for private in ("k" * 40, "s" * 30, platform.node(), str(Path.home()), str(Path(vlsafe.__file__).parent)):
        assert private not in text
    assert f'"{getpass.getuser()}"' not in text


def test_a_package_that_is_not_there_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PACKAGES", ("numpy", "no-such-package-of-ours"))
    versions = environment.package_versions()
    assert versions["no-such-package-of-ours"] is None
    assert versions["numpy"]


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e@e")
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, in which vlsafe seems to live."""
    (tmp_path / "vlsafe").mkdir()
    (tmp_path / "vlsafe" / "__init__.py").write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    monkeypatch.setattr(vlsafe, "__file__", str(tmp_path / "vlsafe" / "__init__.py"))
    return tmp_path


def test_the_revision_of_a_checkout_and_whether_it_was_changed(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert environment.git_revision() == {"commit": commit, "dirty": False}
    (checkout / "vlsafe" / "__init__.py").write_text("changed = True\n")
    assert environment.git_revision() == {"commit": commit, "dirty": True}


def test_an_installed_package_inside_some_other_repository_has_no_revision(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = checkout / "lib" / "site-packages" / "vlsafe"
    inside.mkdir(parents=True)
    monkeypatch.setattr(vlsafe, "__file__", str(inside / "__init__.py"))
    assert environment.git_revision() is None


def test_doctor_says_what_is_there_and_how_to_get_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--cache", str(tmp_path / "none" / "yet")]) == 0
    out = capsys.readouterr().out
    assert f"vlsafe {vlsafe.__version__}" in out
    lines = {line.split()[0]: line for line in out.splitlines() if line.split()}
    assert environment.package_versions()["torch"] in lines["torch"]
    assert "auto takes sdpa" in lines["attention"]
    for name in GROUPS["small"]:
        assert "is not fetched yet" in lines[name] and "vlsafe fetch small" in lines[name]
    assert not (tmp_path / "none").exists()  # looking changes nothing


def test_doctor_works_where_something_needed_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    versions = {**environment.package_versions(), "peft": None, "gguf": None}
    monkeypatch.setattr(environment, "package_versions", lambda: versions)
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it would raise
    assert doctor.main([]) == 1
    out = capsys.readouterr().out
    assert "missing: peft;" in out
    assert "'vlsafe[small]'" in out  # square brackets reach the reader


def test_doctor_notices_a_torchvision_that_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    versions = {**environment.package_versions(), "torchvision": "0.28.0"}
    monkeypatch.setattr(environment, "package_versions", lambda: versions)
    doctor.main(["--cache", str(tmp_path)])
    out = capsys.readouterr().out
    assert "0.28.0: operator torchvision::nms does not exist" in out
