"""Runs read back from W&B: a project through an API that is played here, and files of runs without a server."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from wandb.proto.wandb_internal_pb2 import Record

from vlsafe.__main__ import main
from vlsafe.errors import ConfigError, DataError
from vlsafe.studies.runs import groups, settings
from vlsafe.studies.wandb_runs import offline_run, read_offline, read_project

SHARE = "data.init_args.parts.safety.share"


def summary(asr: float) -> dict[str, Any]:
    rates = {"side/harm": asr, "side/benign": 4.0, "side/utility": 60.0, "objective": 100 - asr}
    return rates | {"final/guard/asr": asr, "_runtime": 3}


def history(asr: float) -> list[dict[str, Any]]:
    return [{"trainer/global_step": 0, "margin/harm": 1.0}, {"trainer/global_step": 2, "margin/harm": asr, "loss": 1.0}]


def config(share: float, seed: int) -> dict[str, Any]:
    return {SHARE: share, "seed_everything": seed, "evaluation.judge": "keyword:a", "_wandb": {"t": 1}}


class Project:
    """What of ``wandb.Api`` is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def runs(self, name: str) -> list[Any]:
        self.asked.append(name)
        return [self._run(f"r{seed}", 0.1, seed, 10 + seed) for seed in (0, 1)] + [
            self._run("r2", 0.0, 0, 90),
            SimpleNamespace(id="r3", name="crashed", url="", config={}, summary_metrics={}, scan_history=list),
        ]

    def _run(self, name: str, share: float, seed: int, asr: float) -> Any:
        return SimpleNamespace(
            id=name,
            name=name,
            url=f"https://tracker.example/{name}",
            config=config(share, seed),
            summary_metrics=summary(asr),
            scan_history=lambda: history(asr),
        )


def test_a_project_is_read_by_its_api(capsys: pytest.CaptureFixture[str]) -> None:
    api = Project()
    runs = read_project("team/vlsafe", api)
    assert api.asked == ["team/vlsafe"]
    assert [(run.label, run.asr, run.over_refusal, run.utility, run.objective) for run in runs] == [
        ("r0", 10, 4, 60, 90),
        ("r1", 11, 4, 60, 89),
        ("r2", 90, 4, 60, 10),
    ]
    assert settings(runs) == [SHARE] and sorted(map(len, groups(runs))) == [1, 2]
    assert runs[0].curves == {"margin/harm": [(0, 1.0), (2, 10.0)]}
    assert runs[0].report["judge"] == "keyword:a"
    assert runs[0].report["metrics"] == {"guard/asr": {"after": {"value": 10}}}
    assert "left out: crashed" in capsys.readouterr().err  # nothing is left out silently


def test_a_project_without_finished_runs_is_told() -> None:
    with pytest.raises(ConfigError, match="wandb:ENTITY/PROJECT"):
        read_project("vlsafe", Project())
    with pytest.raises(DataError, match="no finished run"):
        read_project("team/vlsafe", SimpleNamespace(runs=lambda name: []))


def write_log(path: Path, records: list[Record]) -> None:
    """A file as W&B writes it: records in pieces that fill blocks of 32 KiB."""
    out = bytearray(b":W&B" + struct.pack("<HB", 0xBEE1, 0))
    for record in records:
        data, first = record.SerializeToString(), True
        while first or data:
            room = 32768 - len(out) % 32768
            if room < 7:
                out += bytes(room)
                continue
            piece, data = data[: room - 7], data[room - 7 :]
            kind = {(True, False): 1, (True, True): 2, (False, True): 3, (False, False): 4}[(first, bool(data))]
            out += struct.pack("<IHB", 0, len(piece), kind) + piece
            first = False
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(out))


def records(share: float, asr: float) -> list[Record]:
    made = []
    for kind, values in (
        ("config", config(share, 0) | {"long": "x" * 100_000}),
        *(("history", row) for row in history(asr)),
        ("summary", summary(asr)),
    ):
        record = Record()
        part = getattr(record, kind)
        for name, value in values.items():
            item = (part.item if kind == "history" else part.update).add()
            item.key, item.value_json = name, json.dumps(value)
        made.append(record)
    return made


def test_files_of_runs_without_a_server(tmp_path: Path) -> None:
    for share, asr in ((0.0, 90.0), (0.1, 10.0)):
        write_log(tmp_path / "w" / f"offline-run-{share}" / "run-x.wandb", records(share, asr))
    read, said, rows = offline_run(tmp_path / "w" / "offline-run-0.1" / "run-x.wandb")
    assert len(read["long"]) == 100_000 and rows == history(10.0) and said["objective"] == 90
    runs = read_offline(tmp_path)
    assert [(run.config[SHARE], run.asr) for run in runs] == [(0.0, 90), (0.1, 10)]
    out = tmp_path / "study.html"
    assert main(["study", "report", f"wandb-offline:{tmp_path}", "--out", str(out)]) == 0
    assert "Recommended: safety.share = 0.1" in out.read_text()


def test_a_file_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "run" / "run-x.wandb"
    write_log(path, records(0.1, 10.0))
    path.write_bytes(path.read_bytes()[:-40])
    _, said, rows = offline_run(path)
    assert rows == history(10.0) and "side/harm" not in said


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.wandb").write_bytes(b"something else")
    with pytest.raises(DataError, match="not a file of W&B"):
        read_offline(tmp_path)


@pytest.mark.slow
def test_what_wandb_itself_writes_is_read(tmp_path: Path) -> None:
    code = (
        "import wandb\n"
        "run = wandb.init(mode='offline', project='p', config={'data.share': 0.1, 'evaluation.judge': 'keyword:a'})\n"
        "run.log({'margin/harm': 1.5, 'trainer/global_step': 4})\n"
        "run.log({'side/harm': 5.0, 'side/benign': 6.0, 'objective': 90.0, 'final/guard/asr': 5.0})\n"
        "run.finish()\n"
    )
    environment = os.environ | {"WANDB_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True, capture_output=True)
    (run,) = read_offline(tmp_path)
    assert (run.asr, run.over_refusal, run.objective, run.config["data.share"]) == (5, 6, 90, 0.1)
    assert run.curves == {"margin/harm": [(4, 1.5)]}
