"""``export``: a checkpoint of a run as a Hugging Face directory."""

from __future__ import annotations

import argparse
from pathlib import Path

from vlsafe.checkpointing import loaded
from vlsafe.cli import VlsafeCLI, built
from vlsafe.errors import ConfigError, DataError
from vlsafe.model_card import model_card
from vlsafe.models.export import export_adapter, export_model
from vlsafe.models.strength import check_strength


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="vlsafe export",
        description="Reads a checkpoint and the config of its run. Writes the adapter in PEFT's format, or with "
        "--merge the whole model as transformers loads it.",
    )
    parser.add_argument("checkpoint", type=Path, help="a checkpoint of a run, a file or a folder")
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--merge", action="store_true", help="the whole model instead of the adapter alone")
    parser.add_argument("--max-shard-size", default="5GB", help="largest weight file of a merged model; default: 5GB")
    parser.add_argument(
        "--lora-strength",
        type=float,
        default=1.0,
        metavar="S",
        help="with --merge: how much of the tuning to keep; 0 is the base model, 1 (the default) the tuned one",
    )
    parser.add_argument("--config", type=Path, help="config of the run; default: config.yaml beside checkpoints/")
    options = parser.parse_args(argv)
    if options.lora_strength != 1 and not options.merge:
        raise ConfigError("--lora-strength is for --merge: an adapter is loaded at any strength, see `vlsafe evaluate`")
    check_strength(options.lora_strength)
    run = restored(options.checkpoint, options.config)
    module, directory = run.model, Path(run.config.run_dir)
    adapter_card = model_card(directory, module, run.datamodule, adapter=True)
    if options.merge or export_adapter(module, options.out, adapter_card) is None:
        card = model_card(directory, module, run.datamodule)
        export_model(module, options.out, card, options.max_shard_size, options.lora_strength)
    print(options.out)
    return 0


HERE = ("--trainer.accelerator=auto", "--trainer.strategy=auto", "--trainer.devices=1", "--trainer.num_nodes=1")
"""The machines that a run was made on need not be there to read its checkpoint."""


def restored(checkpoint: Path, config: Path | None = None) -> VlsafeCLI:
    """The run of a checkpoint with its tuned weights in ``model``. ``config``: by default config.yaml of its run.

    Raises DataError when one of the two is not there or the checkpoint is damaged.
    """
    config = config or checkpoint.parent.parent / "config.yaml"
    for path in (checkpoint, config):
        if not path.exists():
            raise DataError(f"{path}: no such file; name a checkpoint of a run, and its config with --config")
    run = built(["--config", str(config), *HERE])
    run.model.configure_model()
    content = loaded(checkpoint)
    run.model.on_load_checkpoint(content)
    run.model.load_state_dict(content["state_dict"], strict=False)
    return run
