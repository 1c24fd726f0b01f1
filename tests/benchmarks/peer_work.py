"""The work that every side of ``train_peers.py`` does: one model, its trainable set, and samples in one order."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import Dataset
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

sys.path[:0] = [str(Path(__file__).parents[level]) for level in (1, 2)]

from tiny import VISION, draw, language_model, save_tokenizer  # noqa: E402

from vlsafe import ComposedVLLM, ConversationData, Part, SafetyFineTuning  # noqa: E402
from vlsafe.cli import built  # noqa: E402
from vlsafe.data.collate import Collate  # noqa: E402
from vlsafe.data.encoding import Encoded  # noqa: E402
from vlsafe.data.loader import MixtureDataset  # noqa: E402
from vlsafe.models.adaptation import Components, Tuning  # noqa: E402
from vlsafe.models.schedule import scheduled  # noqa: E402
from vlsafe.models.summary import parameter_groups  # noqa: E402

ModelName = Literal["tiny", "30m", "quickstart"]
Trainable = Literal["lora", "full"]
CLIP_NORM = 1.0
LENGTHS = [1, 3, 8, 15, 30, 60, 100, 150]
"""Of text answers in tokens, most of them short, as in the post-hoc mix."""
QUICKSTART = Path(__file__).parents[2] / "experiments" / "quickstart.yaml"


@dataclass
class Work:
    """``module`` with its model in memory; ``data`` opened; ``dataset``: step -> sample, the same for every side."""

    module: SafetyFineTuning
    data: ConversationData
    dataset: MixtureDataset
    steps: int
    dtype: torch.dtype

    @property
    def samples(self) -> int:
        return self.steps * self.data.batch_size

    @property
    def collate(self) -> Collate:
        """Padded rows, as the peers' own collators lay them out."""
        return Collate(self.module.backbone.processor.tokenizer.pad_token_id)

    def optimizer(self) -> tuple[AdamW, LambdaLR]:
        """For peers: what vlsafe gives itself in ``configure_optimizers``."""
        module = self.module
        assert module.model is not None and module.plan is not None
        groups = parameter_groups(module.model, module.plan, module.components, module.weight_decay)
        optimizer = AdamW(groups, betas=module.betas, fused=True)
        return optimizer, scheduled(optimizer, module.rates(self.steps), self.steps)

    def tokens(self, first_step: int) -> tuple[int, int]:
        """Real and supervised tokens of the batches from ``first_step`` to the end."""
        rows = [self.dataset[index] for index in range(first_step * self.data.batch_size, self.samples)]
        return sum(len(row.input_ids) for row in rows), sum(row.supervised for row in rows)


def peer_dataset(work: Work) -> Dataset:
    """Samples as the peers' trainers expect them, encoded when they are asked for: ``input_ids``, ``labels``."""

    def encoded(rows: dict[str, list[int]]) -> dict[str, list[Any]]:
        samples = [work.dataset[step] for step in rows["step"]]
        return {
            "input_ids": [sample.input_ids for sample in samples],
            "labels": [sample.labels for sample in samples],
            "encoded": samples,
        }

    return Dataset.from_dict({"step": list(range(work.samples))}).with_transform(encoded)


def peer_collate(work: Work, rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    samples: list[Encoded] = [row["encoded"] for row in rows]
    batch = work.collate(samples)
    inputs = {
        name: value.to(work.dtype) if value.is_floating_point() else value for name, value in batch.inputs.items()
    }
    return {**inputs, "labels": batch.labels}


class InDouble(TorchFunctionMode):
    """Where the models' and losses' own code asks for float32, such as in norms and cross-entropy, it gets float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(lambda each: torch.float64 if each is torch.float32 else each, (args, kwargs or {}))
        return torch.Tensor.double(*args) if func is torch.Tensor.float else func(*args, **kwargs)


def build(name: ModelName, trainable: Trainable, steps: int, folder: Path, dtype: torch.dtype = torch.float32) -> Work:
    """Weights and order depend on ``name`` and ``trainable`` alone; files that must be made go to ``folder``."""
    if name == "quickstart":
        run = built(["--config", str(QUICKSTART)])
        module, data = run.model, _posthoc(run.datamodule, folder)
    else:
        module, data = _made(name, folder)
    if trainable == "full":
        rate = 1e-2 if name == "tiny" else 1e-4
        module.components = Components(Tuning(), Tuning("full", 1e-3), Tuning("full", rate))
    torch.manual_seed(0)
    module.configure_model()
    module.to(dtype)
    mixture = data.open(module.backbone)
    if len(mixture) < steps * data.batch_size:
        raise SystemExit(f"{name}: {steps} steps need {steps * data.batch_size} samples, the mix has {len(mixture)}")
    dataset = MixtureDataset(mixture, data.sources, data.encoding(module.backbone))
    return Work(module, data, dataset, steps, dtype)


def keep_frozen_in_eval(work: Work) -> None:
    """The peers put the whole model into train mode at each step; BatchNorm of a frozen encoder would then use the
    batch's statistics and give another loss. vlsafe keeps what is frozen in eval mode; here the peers do so too."""
    module = work.module
    assert module.plan is not None
    module.train()
    for path, training in module.plan.modes.items():
        if not training:
            frozen = module._plain().get_submodule(path)
            frozen.train = partial(_stays, frozen)  # type: ignore[method-assign]


def _stays(module: nn.Module, mode: bool = True) -> nn.Module:
    return module


def _made(name: ModelName, folder: Path) -> tuple[SafetyFineTuning, ConversationData]:
    """Random weights over one id a character: lengths in characters are lengths in tokens."""
    tokenizer = save_tokenizer(folder / "tokenizer")
    vision: dict[str, Any] = VISION["clip"]
    language = language_model(tokenizer)
    if name == "30m":
        vision = dict(hidden_size=192, intermediate_size=768, num_hidden_layers=6, num_attention_heads=3)
        vision |= dict(image_size=96, patch_size=16)
        heads = dict(num_hidden_layers=10, num_attention_heads=6, num_key_value_heads=6)
        language |= heads | dict(vocab_size=16384, hidden_size=384, intermediate_size=1024)
    backbone = ComposedVLLM("clip", language, vision_weights=vision)
    rate = 2e-2 if name == "tiny" else 7e-4  # few and small weights must move enough for a wrong step to show
    lora = Tuning("lora", rate, rank=16, alpha=32, targets=["gate_proj", "up_proj", "down_proj"])
    module = SafetyFineTuning(backbone, Components(Tuning(), Tuning("full", 1e-3), lora))
    texts = {n: ("one two " * n)[:n].strip() for n in LENGTHS}
    parts = {
        "pictures": Part(f"llava:{_picture_file(folder)}", share=0.5),
        "instructions": Part(f"alpaca:{_text_file(folder, texts)}", share=0.5),
    }
    return module, ConversationData(parts, samples=1800, batch_size=4, padding_free=True)


def _posthoc(quickstart: ConversationData, folder: Path) -> ConversationData:
    """The post-hoc mix on the quickstart's pictures: refusals, answers of one word, and texts of 1 to 150 tokens."""
    parts = {name: Part(quickstart.parts[name].source, share=0.3) for name in ("safety", "easy_vqa")}
    counting = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    texts = {n: " ".join(counting[place % 10] for place in range(n)) for n in LENGTHS}
    parts["text"] = Part(f"alpaca:{_text_file(folder, texts)}", share=0.4)
    return ConversationData(parts, samples=1800, batch_size=8, padding_free=True)


def _picture_file(folder: Path) -> Path:
    colours = ["red", "green", "blue", "white"]
    records = []
    for number, colour in enumerate(colours * 4):
        name = f"{number}.png"
        draw(folder / "pictures", name, colour, (64 + 8 * number, 64))
        answer = colour if number % 2 else "I'm sorry, I can't help with that."
        turns = [{"from": "human", "value": "<image>\nWhich colour?"}, {"from": "gpt", "value": answer}]
        records.append({"id": name, "image": f"pictures/{name}", "conversations": turns})
    path = folder / "pictures.json"
    path.write_text(json.dumps(records))
    return path


def _text_file(folder: Path, answers: dict[int, str]) -> Path:
    rows = [{"instruction": f"Count to {n}.", "input": "", "output": answer} for n, answer in answers.items()]
    path = folder / "text.json"
    path.write_text(json.dumps(rows))
    return path
