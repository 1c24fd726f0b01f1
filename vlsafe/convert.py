"""``convert``: a published checkpoint of another layout as a Hugging Face directory."""

from __future__ import annotations

import argparse
from pathlib import Path

from vlsafe.errors import ConfigError
from vlsafe.fetch.paths import resolved


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="vlsafe convert",
        description="Reads an original LLaVA-1.5 folder (also a LoRA one, with its --base), MiniGPT-v2's checkpoint "
        "file (with --base Llama-2-chat and --vision-tower eva_vit_g.pth), or LLaVA's mm_projector.bin. Writes a "
        "directory that transformers loads, of a projector one that backbones take as projector_weights, after every "
        "key has been matched, and prints what was done.",
    )
    parser.add_argument("source", type=_path, help="folder of an original LLaVA, .pth of MiniGPT-v2, mm_projector.bin")
    parser.add_argument("out", nargs="?", type=Path, help="directory to write")
    parser.add_argument("--out", dest="named_out", metavar="OUT", type=Path, help="the same, as in other verbs")
    parser.add_argument("--base", type=_path, help="folder of the model that LoRA weights adapt; Llama-2-chat's")
    parser.add_argument("--vision-tower", type=_path, help="CLIP folder, or EVA ViT-g's file")
    parser.add_argument("--lora-alpha", type=float, help="of MiniGPT-v2's LoRA weights, where its file does not say it")
    parser.add_argument(
        "--keep-lora",
        action="store_true",
        help="leave MiniGPT-v2's LoRA weights an adapter, OUT/adapter, instead of merging them",
    )
    options = parser.parse_args(argv)
    if (options.out is None) == (options.named_out is None):
        parser.error("name the directory to write, once: vlsafe convert SOURCE OUT, or --out OUT")
    options.out = options.out or options.named_out
    given = (options.source, options.base, options.vision_tower)
    absent = [f"{path}: no such file or folder" for path in given if path is not None and not path.exists()]
    if absent:
        raise ConfigError(absent)
    print(_converted(options))
    return 0


def _converted(options: argparse.Namespace) -> object:
    from vlsafe.models.conversion.projector import convert_projector, is_projector

    if not options.source.is_file():
        return _llava(options)
    if not is_projector(options.source):
        return _minigpt(options)
    given = [name for name in ("base", "vision_tower", "lora_alpha") if getattr(options, name) is not None]
    given += ["keep_lora"] if options.keep_lora else []
    if given:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ConfigError(f"{options.source} is a projector alone; leave {names} out")
    return convert_projector(options.source, options.out)


def _path(text: str) -> Path:
    return Path(resolved(text))


def _llava(options: argparse.Namespace) -> object:
    from vlsafe.models.conversion.llava import convert_llava

    if options.lora_alpha is not None:
        raise ConfigError("--lora-alpha is for MiniGPT-v2; a LoRA checkpoint of LLaVA says its own")
    if options.keep_lora:
        raise ConfigError("--keep-lora is for MiniGPT-v2; PEFT loads a LoRA checkpoint of LLaVA's on its own base")
    return convert_llava(options.source, options.out, options.base, options.vision_tower)


def _minigpt(options: argparse.Namespace) -> object:
    from vlsafe.models.conversion.minigpt import convert_minigpt

    lacking = [name for name in ("base", "vision_tower") if getattr(options, name) is None]
    if lacking:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in lacking)
        raise ConfigError(
            f"{options.source} is a file, so MiniGPT-v2's checkpoint: name its other parts with {names} "
            "(Llama-2-chat's folder, eva_vit_g.pth)"
        )
    return convert_minigpt(
        options.source, options.out, options.base, options.vision_tower, options.lora_alpha, keep_lora=options.keep_lora
    )
