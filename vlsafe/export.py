"""``export``: a checkpoint of a run as a Hugging Face directory."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from vlsafe.cli import built
from vlsafe.errors import DataError
from vlsafe.models.export import export_adapter, export_model
from vlsafe.run_report import model_card


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="vlsafe export",
        description="Reads a checkpoint and the config of its run. Writes the adapter in PEFT's format, or with "
        "--merge the whole model as transformers loads it.",
    )
    parser.add_argument("checkpoint", type=Path, help="a .ckpt file of a run")
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--merge", action="store_true", help="the whole model instead of the adapter alone")
    parser.add_argument("--config", type=Path, help="config of the run; default: config.yaml beside checkpoints/")
    options = parser.parse_args(argv)
    config = options.config or options.checkpoint.parent.parent / "config.yaml"
    for path in (options.checkpoint, config):
        if not path.is_file():
            raise DataError(f"{path}: no such file; name a checkpoint of a run, and its config with --config")
    run = built(["--config", str(config)])
    module = run.model
    module.configure_model()
    checkpoint = torch.load(options.checkpoint, map_location="cpu", weights_only=True)
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"], strict=False)
    if options.merge or export_adapter(module, options.out) is None:
        export_model(module, options.out, model_card(Path(run.config.run_dir), run.datamodule))
    print(options.out)
    return 0
