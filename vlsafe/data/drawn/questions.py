"""Questions about a harmless picture and their answers, made from the picture's own description."""

from __future__ import annotations

import random
from typing import Any

from vlsafe.data.drawn.cards import Card
from vlsafe.data.drawn.scenes import NUMBERS, Group, Scene, listed
from vlsafe.data.drawn.shapes import KINDS
from vlsafe.data.drawn.signs import Sign
from vlsafe.data.drawn.tables import Question, Split, table, with_article


def about_scene(rng: random.Random, split: Split, scene: Scene) -> Question:
    """Colour, number, presence, place or everything."""
    group = rng.choices(scene.groups, [group.count for group in scene.groups])[0]
    subject = rng.choice(("colour", "colour", "count", "count", "present", "place", "all"))
    kind = KINDS[group.kind]
    facts = {
        "thing": _coloured_thing(group),
        "is": "is" if group.count == 1 else "are",
        "colour": group.colour,
        "things": kind.plural,
        "be": "is" if group.count == 1 else "are",
        "count_things": f"{NUMBERS[group.count]} {group.thing}",
        "a_thing": with_article(kind.name),
        "all": scene.listed,
        "be_all": "is" if scene.groups[0].count == 1 else "are",
        "place": scene.place,
        "where": scene.where,
        "time": scene.time,
    }
    if subject != "present":
        return _question(rng, split, subject, facts)
    if rng.random() < 0.5:
        return _question(rng, split, subject, facts, "answer_yes")
    absent = rng.choice([k for k in KINDS.values() if k.only is None and scene.count(k.name) == 0])
    facts |= {"thing": absent.name, "a_thing": with_article(absent.name)}
    return _question(rng, split, subject, facts, "answer_no")


def about_card(rng: random.Random, split: Split, card: Card) -> Question:
    subject = rng.choice(("title", "topic", "card_colour"))
    return _question(rng, split, subject, {"title": card.title, "colour": card.paper})


def about_sign(rng: random.Random, split: Split, sign: Sign) -> Question:
    subject = rng.choice(("sign_text", "sign_where", "sign_colour"))
    return _question(rng, split, subject, {"slogan": sign.slogan, "where": sign.where, "colour": sign.board})


def continued(rng: random.Random, picture: Scene | Card | Sign) -> str:
    """The answer to a neutral request beside a harmless picture."""
    words = table("patterns")["continued"]
    if isinstance(picture, Card):
        return rng.choice(words["cards"]).format(title=picture.title, items=listed(picture.items[:3]))
    if isinstance(picture, Sign):
        return rng.choice(words["signs"]).format(slogan=picture.slogan, extra=rng.choice(words["extra"]))
    rest = listed([f"the {group.coloured}" for group in picture.groups if group.kind != "person"])
    values = {"where": picture.where, "time": picture.time, "rest": rest or "a friend"}
    return rng.choice(words["scenes"]).format(**values)


def _coloured_thing(group: Group) -> str:
    part = KINDS[group.kind].part
    if not part:
        return group.thing
    return f"{part} of the {group.thing}" if group.count == 1 else f"{part}s of the {group.thing}"


def _question(
    rng: random.Random, split: Split, subject: str, facts: dict[str, Any], answer: str = "answer"
) -> Question:
    words = table("patterns")["direct"][subject]
    direct = tuple(pattern.format(**facts) for pattern in words[split])
    return Question(words["clause"].format(**facts), direct, rng.choice(words[answer]).format(**facts))
