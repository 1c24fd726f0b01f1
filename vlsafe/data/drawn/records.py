"""The records of one split in VLGuard's schema, each with the description of its picture."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from PIL import Image

from vlsafe.data.drawn import cards, questions, scenes, signs
from vlsafe.data.drawn.asking import Asker, Medium, Refuser
from vlsafe.data.drawn.cards import Card
from vlsafe.data.drawn.choosing import deck
from vlsafe.data.drawn.scenes import Scene
from vlsafe.data.drawn.signs import Sign
from vlsafe.data.drawn.tables import Split, Topic, advice, everyday, families, harms, rows, slogans, table

Picture = Scene | Card | Sign
P = TypeVar("P", Scene, Card, Sign)

COUNTS: dict[Split, dict[str, dict[Medium, int]]] = {
    "train": {
        "unsafe": {"cards": 250, "scenes": 140, "signs": 110},
        "safe": {"scenes": 320, "cards": 100, "signs": 80},
    },
    "test": {
        "unsafe": {"cards": 40, "scenes": 22, "signs": 18},
        "safe": {"scenes": 44, "cards": 20, "signs": 16},
    },
}
SCENE_EMBLEMS = {"train": ("hood", "hood", "blade", "skull", "hazard"), "test": ("hood", "blade", "bomb", "skull")}
EVERYDAY = {"train": ("tricks_train", "ordinary_train"), "test": ("ordinary_test",)}
NEUTRAL_TURNS: dict[Split, Sequence[int]] = {"train": (1, 4), "test": (4,)}
"""Turns of ten in which a record, harmful or not, is asked about in words that its picture alone makes harmful. More of
them would make the test one of the vision encoder, which sees the warning signs but cannot read."""
ADVICE_TURNS = {"train": (3, 5, 6, 7, 8, 9), "test": range(5, 8)}
"""Turns of ten in which a harmless scene is asked for advice about an object in it; more of them in training, because
advice is worded most like a harmful request and is what a tuned model refuses first."""
EVERYDAY_TURNS: dict[Split, dict[Medium, Sequence[int]]] = {
    "train": {"cards": (2, 3, 5, 6, 7, 8, 9), "signs": (6, 7, 8, 9)},
    "test": {"cards": (8, 9), "signs": (8, 9)},
}
"""The same for everyday requests beside a card or sign. Fewer beside signs: who has rarely been asked what a sign says
quotes the words that it knows best, and those are refusals."""
LONGEST_ANSWER = 25  # words of an answer beside a picture


@dataclass(frozen=True, slots=True)
class Drawn:
    """One record, still without id and image name, and what its picture shows."""

    medium: Medium
    picture: Picture
    record: dict[str, Any]

    def render(self) -> Image.Image:
        if isinstance(self.picture, Scene):
            return scenes.render(self.picture)
        return cards.render(self.picture) if isinstance(self.picture, Card) else signs.render(self.picture)


class SplitMaker:
    """Makes the records of one split; all its randomness comes from ``rng``."""

    def __init__(self, rng: random.Random, split: Split) -> None:
        self._rng = rng
        self._split = split
        self._unsafe, self._safe_unsafe, self._safe_safe = (Asker(rng, split) for _ in range(3))
        self._refuse = Refuser(rng, split)
        self._seen: set[Picture] = set()
        all_harms = harms(split)
        self._harms = deck(rng, all_harms)
        self._object_harms = deck(rng, [topic for topic in all_harms if topic.kinds])
        self._loose_harms = deck(rng, [topic for topic in all_harms if not topic.kinds])
        self._advice = deck(rng, advice(split))
        self._slogans = deck(rng, slogans(split))
        self._titles = deck(rng, table("slots")["harmful_title"][split])
        self._cards = deck(rng, rows(f"cards_{split}", 2, ": "))
        self._signs = deck(rng, rows(f"signs_{split}", 2))
        self._everyday = self._short_everyday()

    def records(self) -> list[Drawn]:
        """Every record of the split, shuffled, so that neither order nor id tells harmful from harmless."""
        made: list[Drawn] = []
        neutral = NEUTRAL_TURNS[self._split]
        for medium, count in COUNTS[self._split]["unsafe"].items():
            made += [self._unsafe_record(medium, neutral=index % 10 in neutral) for index in range(count)]
        safe: dict[Medium, Callable[[int], Drawn]] = {
            "scenes": self._safe_scene,
            "cards": self._safe_card,
            "signs": self._safe_sign,
        }
        for medium, count in COUNTS[self._split]["safe"].items():
            made += [safe[medium](index) for index in range(count)]
        self._rng.shuffle(made)
        return made

    def _unsafe_record(self, medium: Medium, neutral: bool) -> Drawn:
        picture, topic, names = self._harmful(medium)
        if neutral:
            request = self._unsafe.neutral(medium)
            response = self._refuse.picture(topic, self._unsafe.medium(medium))
        else:
            request = self._unsafe.tied(self._unsafe.topic(topic, names), medium)
            response = self._refuse.text(topic)
        family = families()[topic.family]
        record = {
            "safe": False,
            "harmful_category": family.category,
            "harmful_subcategory": family.subcategory,
            "instr-resp": [{"instruction": request, "response": response}],
        }
        return Drawn(medium, picture, record)

    def _harmful(self, medium: Medium) -> tuple[Picture, Topic, dict[str, str]]:
        """A harmful picture, what it is about, and how a request names the objects in it."""
        if medium == "scenes":
            topic = next(self._object_harms)
            emblem = self._rng.choice(SCENE_EMBLEMS[self._split])
            scene = self._new(lambda: scenes.random_scene(self._rng, self._split, topic.kinds, emblem))
            return scene, topic, self._unsafe.names(topic)
        if medium == "cards":
            topic = next(self._harms)
            title = next(self._titles).format(act=topic.act(), gerund=topic.gerund())
            card = self._new(lambda: cards.random_card(self._rng, self._split, title, harmful=True))
            return card, topic, {}
        slogan, topic = next(self._slogans)
        return self._new(lambda: signs.random_sign(self._rng, self._split, slogan, harmful=True)), topic, {}

    def _safe_scene(self, index: int) -> Drawn:
        """Turn by turn: a scene for a harmful request, for a harmless one about an object, or any scene."""
        turn = index % 10
        if turn in NEUTRAL_TURNS[self._split]:
            scene = self._new_scene(("person",))
            request, answer = self._safe_safe.neutral("scenes"), questions.continued(self._rng, scene)
            return self._safe(scene, "scenes", request, answer, self._harm_fitting(scene))
        if turn in ADVICE_TURNS[self._split]:
            helpful = next(self._advice)
            scene = self._new_scene(helpful.kinds)
            it = next(group for group in scene.groups if group.kind == helpful.kinds[0]).coloured
            request = self._safe_safe.topic(helpful, self._safe_safe.names(helpful))
            return self._safe(scene, "scenes", request, helpful.answer.format(it=it), self._harm_fitting(scene))
        if turn < 5:
            topic = next(self._object_harms)
            scene = self._new_scene(topic.kinds)
        else:
            scene = self._new_scene(("person",) if turn == 8 else ())
            topic = self._harm_fitting(scene)
        question = questions.about_scene(self._rng, self._split, scene)
        return self._safe(scene, "scenes", self._safe_safe.picture_question(question), question.answer, topic)

    def _safe_card(self, index: int) -> Drawn:
        title, items = next(self._cards)
        card = self._new(lambda: cards.random_card(self._rng, self._split, title, tuple(items.split("; "))))
        return self._written(card, "cards", index, lambda: questions.about_card(self._rng, self._split, card))

    def _safe_sign(self, index: int) -> Drawn:
        slogan, where = next(self._signs)
        sign = self._new(lambda: signs.random_sign(self._rng, self._split, slogan, where))
        return self._written(sign, "signs", index, lambda: questions.about_sign(self._rng, self._split, sign))

    def _written(self, picture: Picture, medium: Medium, index: int, ask: Callable[[], questions.Question]) -> Drawn:
        """A record on a card or sign: a neutral request, a question about it, or an everyday request beside it."""
        turn = index % 10
        if turn in NEUTRAL_TURNS[self._split]:
            request, answer = self._safe_safe.neutral(medium), questions.continued(self._rng, picture)
        elif turn in EVERYDAY_TURNS[self._split][medium]:
            helpful = next(self._everyday)
            request, answer = self._safe_safe.tied(self._safe_safe.topic(helpful), medium), helpful.answer
        else:
            question = ask()
            request, answer = self._safe_safe.picture_question(question), question.answer
        return self._safe(picture, medium, request, answer, next(self._harms))

    def _safe(self, picture: Picture, medium: Medium, request: str, answer: str, harm: Topic) -> Drawn:
        asker = self._safe_unsafe
        shown = isinstance(picture, Scene) and all(picture.count(kind) == 1 for kind in harm.kinds)
        unsafe = asker.topic(harm, asker.names(harm) if shown else None)
        if not (shown and harm.kinds):
            unsafe = asker.tied(unsafe, medium)
        pairs = [
            {"safe_instruction": request, "response": answer},
            {"unsafe_instruction": unsafe, "response": self._refuse.text(harm)},
        ]
        return Drawn(medium, picture, {"safe": True, "instr-resp": pairs})

    def _harm_fitting(self, scene: Scene) -> Topic:
        """A harmful topic about objects of the scene where there is one."""
        shown = {group.kind for group in scene.groups}
        fitting = [topic for topic in harms(self._split) if topic.kinds and shown >= set(topic.kinds)]
        return self._rng.choice(fitting) if fitting else next(self._loose_harms)

    def _new_scene(self, must: tuple[str, ...]) -> Scene:
        return self._new(lambda: scenes.random_scene(self._rng, self._split, must))

    def _new(self, draw: Callable[[], P]) -> P:
        """A picture not drawn before in this split."""
        while (picture := draw()) in self._seen:
            pass
        self._seen.add(picture)
        return picture

    def _short_everyday(self) -> Iterator[Topic]:
        topics = [row for name in EVERYDAY[self._split] for row in everyday(name) if isinstance(row, Topic)]
        return deck(self._rng, [topic for topic in topics if len(topic.answer.split()) <= LONGEST_ANSWER])
