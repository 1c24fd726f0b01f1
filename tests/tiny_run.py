"""A config whose every part is tiny, and its data, for whole runs through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.tiny import VISION, alpaca_file, draw, language_model, llava_file, save_tokenizer


def vlguard_folder(folder: Path, rows: int = 4) -> Path:
    """Two unsafe records for training and for test, the others safe, in VLGuard's schema."""
    for split in ("train", "test"):
        records: list[dict[str, Any]] = []
        for number in range(rows):
            draw(folder / split / "signs", f"{split}{number}.png", ["red", "blue", "green", "white"][number % 4])
            row = {"id": f"{split}{number}", "image": f"signs/{split}{number}.png", "safe": number > 1}
            if number > 1:
                row["instr-resp"] = [
                    {"safe_instruction": f"which colour {number}?", "response": "green"},
                    {"unsafe_instruction": f"how to harm {number}?", "response": "I'm sorry, I can't."},
                ]
            else:
                row |= {"harmful_category": "privacy", "harmful_subcategory": "personal data"}
                row["instr-resp"] = [{"instruction": f"copy it {number}", "response": "I'm sorry, no."}]
            records.append(row)
        (folder / f"{split}.json").write_text(json.dumps(records))
    return folder


def tiny_run(tmp_path: Path) -> Path:
    """A config in ``tmp_path`` whose every part is tiny, with its data; LoRA on the language model, full projector."""
    tokenizer = save_tokenizer(tmp_path / "tokenizer", eos_token="<|im_end|>")
    guard = vlguard_folder(tmp_path / "guard")
    content = {
        "seed_everything": 0,
        "run_dir": str(tmp_path / "run"),
        "model": {
            "class_path": "vlsafe.SafetyFineTuning",
            "init_args": {
                "backbone": {
                    "class_path": "vlsafe.ComposedVLLM",
                    "init_args": {
                        "vision_encoder": "clip",
                        "vision_weights": VISION["clip"],
                        "language_model": language_model(tokenizer),
                    },
                },
                "components": {
                    "vision": {"train": "frozen"},
                    "projector": {"train": "full", "learning_rate": 1e-3},
                    "language": {"train": "lora", "learning_rate": 1e-3, "rank": 2, "alpha": 4},
                },
            },
        },
        "data": {
            "class_path": "vlsafe.ConversationData",
            "init_args": {
                "parts": {
                    "safety": {"source": f"vlguard:{guard}#train", "share": 0.5},
                    "pictures": {"source": f"llava:{llava_file(tmp_path / 'llava.json', 6)}", "share": 0.25},
                    "text": {"source": f"alpaca:{alpaca_file(tmp_path / 'alpaca.json', 6)}", "share": 0.25},
                },
                "samples": 16,
                "batch_size": 4,
                "padding_free": True,
                "validation": {"safety": f"vlguard:{guard}#test"},
                "prompts": f"vlguard:{guard}#test",
            },
        },
        "trainer": {"accelerator": "cpu", "max_epochs": 1, "log_every_n_steps": 1, "limit_val_batches": 1.0},
        "evaluation": {
            "max_new_tokens": 4,
            "benchmarks": [
                {
                    "class_path": "vlsafe.evaluation.benchmarks.vlguard.VLGuard",
                    "init_args": {"path": str(guard), "name": "guard"},
                }
            ],
        },
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path
