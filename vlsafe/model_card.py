"""README.md of an exported model or adapter: recipe, data, licences, and what the tuning gained and cost."""

from __future__ import annotations

import hashlib
import json
from itertools import islice
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from transformers import PretrainedConfig

from vlsafe import __version__
from vlsafe.data.datamodule import ConversationData
from vlsafe.data.images import image_bytes
from vlsafe.data.mixture import Part
from vlsafe.data.sources import parse_spec
from vlsafe.errors import DataError
from vlsafe.evaluation.records import write_text
from vlsafe.fetch.paths import resolved
from vlsafe.licences import licence_of, shown
from vlsafe.models.backbones.image_fit import fit_of
from vlsafe.models.module import SafetyFineTuning

_TRAINER = ("max_epochs", "max_steps", "accumulate_grad_batches", "devices", "precision", "gradient_clip_val")
_DATA = ("samples", "batch_size", "group_by_modality_length", "seed", "max_length", "padding_free")
READ_AGAIN = 10_000
"""Pictures that are read once more for a card, in seconds: VLGuard has 2,000, LLaVA-1.5's instructions 665,000."""


def model_card(directory: Path, module: SafetyFineTuning, data: ConversationData, adapter: bool = False) -> str:
    """The card of what the run in ``directory`` made. Its ``config.yaml`` and ``report.json`` are read where they
    exist; the metrics are missing from the card of a run that has not been evaluated.

    Worked example: ``| vlguard[unsafe]/asr | 84.1 [80.6, 87.1] | 2.3 [1.3, 4.0] | 442 |`` says that of 442 harmful
    prompts 84.1 % were answered before and 2.3 % after.
    """
    bases = base_models(module)
    sections = [
        _head(directory.name, bases, adapter),
        _effect(directory / "report.json"),
        _recipe(directory / "config.yaml", module),
        _data(data),
        _licences(bases, data),
        _loading(adapter),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def rewrite_cards(directory: Path, module: SafetyFineTuning, data: ConversationData) -> None:
    """The cards in ``directory`` again, now that its report is there. Raises VlsafeError when the disk is full."""
    for name in ("model", "adapter"):
        if (directory / name).is_dir():
            write_text(directory / name / "README.md", model_card(directory, module, data, adapter=name == "adapter"))


def base_models(module: SafetyFineTuning) -> list[str]:
    """Folders or hub names that the weights came from: of the whole model, or of its parts."""
    assert module.model is not None
    config: PretrainedConfig = module.model.config
    parts = [config, *(getattr(config, name) for name in config.sub_configs)]
    return list(dict.fromkeys(part.name_or_path for part in parts if part.name_or_path))


def data_hash(data: ConversationData) -> str:
    """sha256 over the training parts in their order: name, and of each record its id, texts and picture names."""
    data.open()
    digest = hashlib.sha256()
    for name, source in data.sources.items():
        for conversation in source:
            turns = [
                [t.role, *(p if isinstance(p, str) else {"image": p.name} for p in t.content)]
                for t in conversation.turns
            ]
            digest.update(json.dumps([name, conversation.id, turns], ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def pictures_hash(data: ConversationData) -> str:
    """What a card says of the pictures' bytes: their sha256 in the order of the records, where they are few enough to
    be read again; else that they are not covered, and why."""
    data.open()
    pictures = (picture for source in data.sources.values() for record in source for picture in record.images)
    few = list(islice(pictures, READ_AGAIN + 1))
    if not few:
        return "There are no pictures."
    if len(few) > READ_AGAIN:
        return f"The pictures' bytes are not covered: they are more than {READ_AGAIN:,}."
    digest = hashlib.sha256()
    try:
        for picture in few:
            digest.update(hashlib.sha256(image_bytes(picture)).digest())
    except DataError:  # of a record that the run never drew
        return f"The pictures' bytes are not covered: {picture.name} cannot be read."
    return f"sha256 of the sha256 of each picture's bytes: `{digest.hexdigest()}`."


def _head(title: str, bases: list[str], adapter: bool) -> str:
    facts: dict[str, Any] = {
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "image-text-to-text",
    }
    on_hub = [name for name in bases if shown(name) == name and name.count("/") == 1]
    facts |= {"base_model": on_hub} if on_hub else {}
    facts["tags"] = ["vlsafe", "safety"]
    lines = "\n".join(
        f"{key}: {json.dumps(value) if isinstance(value, list) else value}" for key, value in facts.items()
    )
    made = f"Safety fine-tuned with vlsafe {__version__}"
    made += f" from {', '.join(shown(name) for name in bases)}." if bases else "."
    return f"---\n{lines}\n---\n# {title}\n\n{made}"


def _effect(path: Path) -> str:
    if not path.is_file():
        return ""
    report = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        [name, _rate(row.get("before")), _rate(row["after"]), str(row["after"]["n"])]
        for name, row in report["metrics"].items()
    ]
    table = _table(["metric", "before", "after", "n"], rows)
    return (
        f"## What it gained and what it cost\n\nIn percent with 95 % intervals; judged by {report['judge']}.\n\n{table}"
    )


def _rate(side: dict[str, Any] | None) -> str:
    if side is None or not side["n"]:
        return "not measured"
    return f"{side['value']:.1f} [{side['low']:.1f}, {side['high']:.1f}]"


def _recipe(config: Path, module: SafetyFineTuning) -> str:
    rows = [
        [
            row["component"],
            row["train"],
            f"{row['trainable']:,} of {row['parameters']:,}",
            row["learning_rate"],
            row["note"],
        ]
        for row in module.trained
    ]
    columns = ["component", "train", "parameters that train", "learning rate", "how"]
    settings = {
        "objective": type(module.objective).__name__,
        "schedule": module.schedule,
        "weight_decay": module.weight_decay,
        "betas": list(module.betas),
        "image fit": fit_of(module.backbone.processor),
    }
    if module.adapter is not None:
        settings["went on from"] = module.adapter
    warmup = ("warmup_ratio" if module.warmup_steps is None else "warmup_steps", "warmup_start", "min_learning_rate")
    settings |= {name: getattr(module, name) for name in warmup if getattr(module, name)}
    if config.is_file():
        told: Any = OmegaConf.to_container(OmegaConf.load(config))
        for room, names in ((told.get("trainer", {}), _TRAINER), (told.get("data", {}).get("init_args", {}), _DATA)):
            settings |= {name: room[name] for name in names if room.get(name) is not None}
    return (
        "## Recipe\n\n"
        + _table(columns, rows)
        + "\n\n"
        + _table(["setting", "value"], [[k, v] for k, v in settings.items()])
    )


def _data(data: ConversationData) -> str:
    counts = data.open().counts()
    rows = [[name, len(data.sources[name]), counts[name]] for name in data.parts]
    table = _table(["part", "records", "samples an epoch"], rows)
    texts = f"sha256 of the parts' ids, texts and picture names: `{data_hash(data)}`."
    return f"## Data\n\n{table}\n\n{texts} {pictures_hash(data)}"


def _licences(bases: list[str], data: ConversationData) -> str:
    rows = [["base", shown(name), licence_of(name)] for name in bases]
    rows += [["data", name, licence_of(_place(part))] for name, part in data.parts.items()]
    words = "All of them hold for this model too."
    return f"## Licences\n\n{_table(['of', 'name', 'licence'], rows)}\n\n{words}"


def _place(part: Part) -> str:
    options = parse_spec(part.source) if isinstance(part.source, str) else part.source
    return resolved(str(options["path"]))


def _loading(adapter: bool) -> str:
    if adapter:
        words = (
            "Load the base model, then `peft.PeftModel.from_pretrained(base, <this folder>)`. "
            "`projector.safetensors` holds the projector by itself, by its names in the model."
        )
    else:
        words = (
            "Load it with `vlsafe.PretrainedVLLM(<this folder>)`. Plain transformers loads it too; where the vision "
            "encoder is vlsafe's own, import its module in `vlsafe.models.encoders` first."
        )
    return f"## Loading\n\n{words}"


def _table(columns: list[str], rows: list[list[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(
        "| " + " | ".join("" if cell is None else str(cell).replace("|", "\\|") for cell in row) + " |" for row in lines
    )
