"""Commands that train nothing, told to stop: the status says so, and what was finished stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stopped import ROOT, Told, imports
from tests.tiny import composed, save_tokenizer, seeded_model
from tests.tiny_run import vlguard_folder
from vlsafe.__main__ import main
from vlsafe.stopping import STOP, Stopped, StopSignals

BOTH = pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])


def test_one_more_signal_goes_one_further(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlsafe.stopping._ONE_REQUEST", 0.0)
    signals = StopSignals()
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    with signals.watched():
        signals.defer()
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGTERM
        with pytest.raises(Stopped) as stopped:
            os.kill(os.getpid(), signal.SIGTERM)
        assert stopped.value.code == 143
        monkeypatch.setattr(os, "_exit", lambda status: (_ for _ in ()).throw(ZeroDivisionError(status)))
        with pytest.raises(ZeroDivisionError, match="143"):
            os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before
    assert capfd.readouterr().err.count("SIGTERM: stopping") == 2


def test_what_a_launcher_passes_on_is_the_same_request() -> None:
    signals = StopSignals()
    with signals.watched():
        signals.defer()
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):  # terminal, torchrun, its agent's end
            os.kill(os.getpid(), number)
        with pytest.raises(Stopped) as stopped:
            signals.deliver()
        assert stopped.value.code == 130


def test_no_error_handler_goes_on_after_it() -> None:
    """Also where a library catches every exception while it is imported: nothing is raised then."""
    code = (
        "import os, signal\n"
        "from vlsafe.stopping import STOP\n"
        "with STOP.watched():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGUSR1)\n"
        "    except BaseException:\n"
        "        pass\n"
        "print('went on')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (143, ""), done.stderr


@pytest.mark.slow
@BOTH
def test_evaluate_keeps_the_answers_that_it_has(number: int, status: int, tmp_path: Path) -> None:
    guard = vlguard_folder(tmp_path / "guard", rows=60)
    model = tmp_path / "model"
    backbone = composed(save_tokenizer(tmp_path / "tokenizer"))
    made = seeded_model(backbone)
    made.save_pretrained(model)
    backbone.processor.save_pretrained(model)
    out = tmp_path / "out"
    argv = ["evaluate", "--model", str(model), "--benchmarks", f"vlguard={guard}", "--out", str(out)]
    argv += ["--max-new-tokens", "32", "--batch-size", "4"]
    assert Told(argv, tmp_path).once(imports).tell(number).status() == status
    running = Told(argv, tmp_path).once(lambda _: (out / "responses.jsonl").exists()).tell(number)
    assert running.status() == status, running.said
    kept = (out / "responses.jsonl").read_text().splitlines()
    assert kept and not (out / "metrics.json").exists() and "Traceback" not in running.said
    running = Told(argv, tmp_path)
    assert running.status() == 0, running.said
    assert (out / "responses.jsonl").read_text().splitlines()[: len(kept)] == kept
    assert json.loads((out / "metrics.json").read_text())["metrics"]


def test_what_fails_while_it_is_torn_down_is_no_error_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(_: list[str]) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            raise RuntimeError("half made")  # as a teardown does

    monkeypatch.setattr("vlsafe.__main__._dispatch", lambda argv: STOP.deliver() or told(argv))
    assert main([]) == 143
    assert "Traceback" not in capsys.readouterr().err
