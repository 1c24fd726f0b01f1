"""Every family answers in pieces what it answers whole, while one process sees images and the other never."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from every import FAMILIES
from fitting import data, files, trainer
from processes import saved
from processes import together as in_processes
from short_run import COMPOSED, TABLES, backbone_of, strategy
from tiny import draw, talk

from vlsafe import SafetyFineTuning
from vlsafe.answering import Answer, Decoding
from vlsafe.conversation import Conversation, user
from vlsafe.evaluation.sharing import Processes
from vlsafe.measuring import together
from vlsafe.models.backbones.base import Backbone
from vlsafe.models.responder import ModelResponder

IN_CI = ("mllama", "qwen3_vl")
"""One leaves blocks out for text, the other runs blocks that see in another order than it lists them."""
NAMES = [COMPOSED, *(family.name for family in FAMILIES)]
CASES = [
    pytest.param(n, marks=pytest.mark.slow if n in IN_CI else [] if n == COMPOSED else pytest.mark.long) for n in NAMES
]


def prompts(folder: Path) -> list[Conversation]:
    """Of two processes the first gets images alone, and one prompt more."""
    colours = [draw(folder / "asked", f"{colour}.png", colour, (40, 30)) for colour in ("red", "blue", "green")]
    asked = [
        user(colours[0], "which?"),
        user("why?"),
        user(colours[1], "a long question?"),
        user("no"),
        user(colours[2], "a"),
    ]
    return [talk(turn, identity=str(number)) for number, turn in enumerate(asked)]


class Asks(L.Callback):
    def __init__(self, folder: Path) -> None:
        self.prompts = prompts(folder)
        self.answers: dict[int, Answer] = {}
        self.identity: dict[str, Any] = {}

    def on_fit_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        responder = ModelResponder(pl_module.model, pl_module.backbone, batch_size=2)
        self.identity = responder.identity()

        def ask(processes: Processes) -> None:
            places = processes.share(range(len(self.prompts)))
            mine = [self.prompts[place] for place in places]
            found = {places[i]: answer for i, answer in responder.respond(mine, Decoding(6, min_new_tokens=2))}
            options = Decoding(options=("a", "no"))
            found |= {places[i] + 10: answer for i, answer in responder.respond(mine, options)}
            processes.done()
            self.answers = {place: a for each in processes.exchanged(found) for place, a in each.items()}

        together(trainer, pl_module, ask)


def asked(backbone: Backbone, folder: Path, name: str, world: int) -> dict[str, Any]:
    asks = Asks(folder)
    made = trainer(folder, devices=world, strategy=strategy(name), max_steps=0, callbacks=[asks])
    made.fit(SafetyFineTuning(backbone, TABLES["lora"]), datamodule=data(folder, batch_size=1))
    told = {place: (answer.text, answer.n_tokens, answer.error) for place, answer in asks.answers.items()}
    return {"answers": told, "identity": asks.identity}


def each_of_two(backbone: Backbone, folder: Path) -> None:
    torch.save(asked(backbone, folder, "fsdp2", world=2), folder / f"{torch.distributed.get_rank()}.pt")


@pytest.mark.parametrize("family", CASES)
def test_a_model_in_pieces_answers_as_a_whole_one(family: str, tmp_path: Path) -> None:
    files(tmp_path)
    backbone = backbone_of(family, tmp_path)
    alone = asked(backbone, tmp_path, "single", world=1)
    assert not any(error for _, _, error in alone["answers"].values())
    assert len(alone["answers"]) == 5 + 5
    in_processes(2, each_of_two, backbone, tmp_path)
    for rank in (0, 1):
        assert saved(tmp_path / f"{rank}.pt") == alone
