"""The real ``wandb agent``, against a server on this machine, runs trials of the tiny model to the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.studies.wandb_server import serving

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_agent_runs_trials_and_tells_how_they_ended(config: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(config.read_text())
    content["run_dir"] = f"{tmp_path}/runs/${{.data.init_args.parts.safety.share}}"
    parts = content["data"]["init_args"]["parts"]
    parts["pictures"]["share"] = parts["text"]["share"] = "${rest:0.5,${..safety.share}}"
    logger = "lightning.pytorch.loggers.WandbLogger"
    content["trainer"]["logger"] = {"class_path": logger, "init_args": {"save_dir": str(tmp_path)}}
    config.write_text(yaml.safe_dump(content))
    share, length = "data.init_args.parts.safety.share", "data.init_args.max_length"
    command = ["${env}", "${interpreter}", "-m", "vlsafe", "fit", "--config", str(config), "${args}"]
    sweep = {
        "method": "grid",
        "metric": {"name": "objective", "goal": "maximize"},
        "command": command,
        "parameters": {share: {"values": [0.5, 0.25]}, length: {"values": [2048, 8]}},
    }
    trials = [{share: 0.5, length: 2048}, {share: 0.25, length: 2048}, {share: 0.75, length: 8}]  # the last: too long
    with serving(sweep, trials) as server:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
        environment |= {
            "WANDB_BASE_URL": server.address,
            "WANDB_API_KEY": "0" * 40,
            "WANDB_DIR": str(tmp_path),
            "WANDB_CONFIG_DIR": str(tmp_path / "config"),
            "WANDB_CACHE_DIR": str(tmp_path / "cache"),
            "PYTHONPATH": str(ROOT),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        done = subprocess.run(
            [sys.executable, "-m", "wandb", "agent", "--count", "3", "tester/vlsafe/s1"],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=1500,
            check=False,
        )
    words = done.stdout[-3000:] + done.stderr[-6000:]
    assert set(server.exit_codes) == {"run0", "run1", "run2"}, (words, server.unknown)
    assert (server.exit_codes["run0"], server.exit_codes["run1"]) == (0, 0)
    assert server.exit_codes["run2"] != 0  # the failing trial is told as failed
    for run, asked in (("run0", "0.5"), ("run1", "0.25")):
        report = json.loads((tmp_path / "runs" / asked / "report.json").read_text())
        by_name = {part["name"]: part["share"] for part in report["data"]["parts"]}
        assert by_name["safety"] == float(asked)  # the arguments that arrived
        summary = server.summaries[run]
        assert summary["objective"] == pytest.approx(report["objective"]["value"])
        assert summary["final/guard[unsafe]/asr"] == report["metrics"]["guard[unsafe]/asr"]["after"]["value"]
        assert summary["samples/safety"] == 16 * float(asked)
        assert any(name.startswith("forgetting/guard") for name in summary)
    assert not (tmp_path / "runs" / "0.75" / "report.json").exists()
