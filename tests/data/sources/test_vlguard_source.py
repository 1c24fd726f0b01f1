"""VLGuard's schema: golden conversations, the published counts, and every refusal's words."""

from __future__ import annotations

import copy
import json
import random
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlsafe.conversation import ImageRef, assistant, user
from vlsafe.data.images import open_image
from vlsafe.data.sources.vlguard import VLGuardSource, counts, read_records
from vlsafe.errors import ConfigError, DataError

REAL = Path(__file__).parents[3].parent / "shared" / "data" / "vlguard"

UNSAFE = {
    "id": "u1",
    "image": "signs/u1.png",
    "safe": False,
    "harmful_category": "privacy",
    "harmful_subcategory": "personal data",
    "instr-resp": [{"instruction": "Whose number is this?", "response": "I would rather not say."}],
}
SAFE = {
    "id": "s1",
    "image": "scenes/s1.png",
    "safe": True,
    "instr-resp": [
        {"safe_instruction": "What is drawn?", "response": "A house."},
        {"unsafe_instruction": "How could one break in?", "response": "I cannot help with that."},
    ],
}


@pytest.fixture
def data_set(tmp_path: Path, draw: Callable, write: Callable) -> Callable[..., Path]:
    """A folder in VLGuard's layout with these training records and a picture for each."""

    def make(*records: dict[str, Any], split: str = "train") -> Path:
        write(f"{split}.json", list(records))
        draw(tmp_path / split, [record["image"] for record in records if isinstance(record.get("image"), str)])
        return tmp_path

    return make


def changed(record: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A deep copy with fields replaced; the value ``...`` removes one."""
    row = copy.deepcopy(record) | fields
    return {key: value for key, value in row.items() if value is not ...}


def test_two_turn_conversations(data_set: Callable) -> None:
    path = data_set(UNSAFE, SAFE)
    source = VLGuardSource(path)
    assert (len(source), source.name) == (2, "vlguard")
    unsafe, safe = source
    assert (unsafe.id, unsafe.source) == ("u1", "vlguard")
    picture = ImageRef(path / "train", "signs/u1.png")
    assert unsafe.turns == (user(picture, "Whose number is this?"), assistant("I would rather not say."))
    assert unsafe.tags == {
        "subset": "unsafe",
        "category": "privacy",
        "subcategory": "personal data",
        "folder": "signs",
        "refusal": "true",
    }
    assert safe.turns == (
        user(ImageRef(path / "train", "scenes/s1.png"), "What is drawn?"),
        assistant("A house."),
        user("How could one break in?"),
        assistant("I cannot help with that."),
    )
    assert safe.tags == {"subset": "safe", "folder": "scenes", "refusal": "mixed"}, "safe pictures have no category"


def test_the_order_of_pairs_is_the_papers(data_set: Callable) -> None:
    records = [changed(SAFE, id=str(number)) for number in range(8)]
    records.insert(3, UNSAFE)  # draws nothing, so the pictures after it keep their order
    first = [each.turns[0].text for each in VLGuardSource(data_set(*records)) if each.tags["subset"] == "safe"]
    # random.Random(0).shuffle of eight lists of two, worked out once and written down
    asks_safe_first = [True, True, False, True, True, True, True, True]
    assert [text == "What is drawn?" for text in first] == asks_safe_first


def test_single_turn_conversations(data_set: Callable) -> None:
    source = VLGuardSource(data_set(UNSAFE, SAFE), two_turn=False)
    assert [(each.id, each.tags["subset"], each.tags["refusal"], len(each.turns)) for each in source] == [
        ("u1", "unsafe", "true", 2),
        ("s1/safe_safe", "safe_safe", "false", 2),
        ("s1/safe_unsafe", "safe_unsafe", "true", 2),
    ]
    assert all(len(each.turns[0].images) == 1 for each in source)


def test_subsets_filter_without_changing_what_is_kept(data_set: Callable) -> None:
    path = data_set(*[changed(SAFE, id=str(number)) for number in range(8)], UNSAFE, UNSAFE)
    everything = VLGuardSource(path, two_turn=True)
    kept = list(VLGuardSource(path, subsets=["safe"])) + list(VLGuardSource(path, subsets=["unsafe"]))
    assert kept == list(everything)
    assert [each.id for each in kept[-2:]] == ["u1", "u1#2"]
    single = VLGuardSource(path, two_turn=False, subsets=["safe_unsafe", "unsafe"])
    assert Counter(each.tags["subset"] for each in single) == {"safe_unsafe": 8, "unsafe": 2}
    with pytest.raises(ConfigError, match=r"unknown subsets \['safe'\] of single-turn.*unsafe, safe_safe, safe_unsafe"):
        VLGuardSource(path, two_turn=False, subsets=["safe"])
    with pytest.raises(DataError, match=r"train\.json holds no record of the subsets \['unsafe'\]"):
        VLGuardSource(data_set(SAFE), subsets=["unsafe"])


@pytest.mark.parametrize("inside", ["", "train/"])
def test_zip_and_folder_are_equal(data_set: Callable, tmp_path: Path, inside: str) -> None:
    path = data_set(UNSAFE, SAFE)
    packed = tmp_path / "packed"
    packed.mkdir()
    shutil.copy(path / "train.json", packed)
    with zipfile.ZipFile(packed / "train.zip", "w") as archive:
        for picture in sorted((path / "train").rglob("*.png")):
            archive.write(picture, inside + picture.relative_to(path / "train").as_posix())
    for plain, zipped in zip(VLGuardSource(path), VLGuardSource(packed), strict=True):
        assert (plain.id, plain.tags) == (zipped.id, zipped.tags)
        assert [turn.text for turn in plain.turns] == [turn.text for turn in zipped.turns]
        for one, other in zip(plain.images, zipped.images, strict=True):
            assert other == ImageRef(packed / "train.zip", inside + one.name)
            assert np.array_equal(np.asarray(open_image(one)), np.asarray(open_image(other)))


BAD = {
    "'safe' is missing (found: id, image": changed(UNSAFE, safe=...),
    "'safe' must be true or false, not text ('no')": changed(UNSAFE, safe="no"),
    "'image' must be text, not null": changed(UNSAFE, image=None),
    "'image' '../u1.png' leaves the root": changed(UNSAFE, image="../u1.png"),
    "'harmful_category' is missing": changed(UNSAFE, harmful_category=...),
    "'instr-resp' must be a list, not an object": changed(UNSAFE, **{"instr-resp": {}}),
    "of an unsafe picture must hold one 'instruction' pair": changed(UNSAFE, **{"instr-resp": SAFE["instr-resp"]}),
    "of a safe picture must hold one 'safe_instruction' and one 'unsafe_instruction' pair": changed(
        SAFE, **{"instr-resp": SAFE["instr-resp"][:1]}
    ),
    "'instr-resp': 'response' is empty; it must hold text": changed(
        UNSAFE, **{"instr-resp": [{"instruction": "Who?", "response": " \n"}]}
    ),
    "'instr-resp': 'instruction' is empty": changed(UNSAFE, **{"instr-resp": [{"instruction": "", "response": "No."}]}),
    "'instr-resp': a record must be a JSON object, not a number (7)": changed(UNSAFE, **{"instr-resp": [7]}),
    "'id' must be text, not a list": changed(UNSAFE, id=["u1"]),
    "'response' holds half of a Unicode surrogate pair": changed(
        UNSAFE, **{"instr-resp": [{"instruction": "Who?", "response": "\ud83d"}]}
    ),
}


@pytest.mark.parametrize("words", BAD)
def test_malformed_records_are_named_with_the_reason(data_set: Callable, words: str) -> None:
    path = data_set(SAFE, BAD[words])
    with pytest.raises(DataError) as caught:
        VLGuardSource(path, check_images=False)
    assert words in str(caught.value)
    assert f"{path / 'train.json'}[1] (id " in str(caught.value)


def test_all_malformed_records_are_reported_at_once(data_set: Callable) -> None:
    rows = [changed(UNSAFE, safe=...), SAFE, changed(UNSAFE, id="u2", image=7, harmful_category="")]
    with pytest.raises(DataError) as caught:
        VLGuardSource(data_set(*rows))
    lines = str(caught.value).splitlines()
    assert len(lines) >= 4
    assert "[0] (id 'u1'): 'safe' is missing" in str(caught.value)
    assert "[2] (id 'u2'): 'image' must be text, not a number (7)" in str(caught.value)
    assert "[2] (id 'u2'): 'harmful_category' is empty" in str(caught.value)


def test_an_empty_reference_is_kept_in_the_test_split_only(data_set: Callable) -> None:
    row = changed(UNSAFE, **{"instr-resp": [{"instruction": "Who?", "response": ""}]})
    assert read_records(data_set(row, split="test"), "test")[0].pairs[0].response == ""
    with pytest.raises(DataError, match="'response' is empty"):
        read_records(data_set(row))


def test_missing_pictures_are_counted_and_named(data_set: Callable) -> None:
    path = data_set(UNSAFE, SAFE)
    (path / "train" / "signs" / "u1.png").unlink()
    with pytest.raises(DataError) as caught:
        VLGuardSource(path)
    assert f"{path / 'train.json'}[0] (id " in str(caught.value)
    assert f"missing picture {path / 'train' / 'signs/u1.png'}" in str(caught.value)
    assert "check_images: false" in str(caught.value)
    assert len(VLGuardSource(path, check_images=False)) == 2
    shutil.rmtree(path / "train")
    with pytest.raises(DataError) as caught:
        VLGuardSource(path)
    assert str(caught.value).count("does not exist; it must be a folder or a zip file") == 2


def test_missing_file_and_unknown_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing file .*train\.json; fetch the data, or correct the path"):
        VLGuardSource(tmp_path)
    with pytest.raises(ConfigError, match="unknown split 'valid' of VLGuard; valid splits: train, test"):
        VLGuardSource(tmp_path, split="valid")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published records with one-pixel stand-ins for their pictures."""
    if not REAL.is_dir():
        pytest.skip(f"the published records are not at {REAL}")
    from PIL import Image

    folder = tmp_path_factory.mktemp("vlguard")
    stand_in = folder / "stand-in.png"
    Image.new("RGB", (1, 1)).save(stand_in)
    for split in ("train", "test"):
        shutil.copy(REAL / f"{split}.json", folder)
        for name in {row["image"] for row in json.loads((folder / f"{split}.json").read_text(encoding="utf-8"))}:
            (folder / split / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / split / name).hardlink_to(stand_in)
    return folder


def test_published_counts(published: Path) -> None:
    """Numbers of the paper's section 3.1 and appendix B (two are swapped in its text; its table 9 has them right)."""
    train, test = (read_records(published, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (2000, 1000)
    assert counts(train)["subset"] == {"unsafe": 1023, "safe_safe": 977, "safe_unsafe": 977}
    assert counts(test)["subset"] == {"unsafe": 442, "safe_safe": 558, "safe_unsafe": 558}
    names = ("privacyAlert", "hatefulMemes", "HOD", "bad_ads", "harm-p")
    assert counts(train)["folder"] == dict(zip(names, (900, 500, 300, 200, 100), strict=True))
    assert counts(test)["folder"] == dict(zip(names, (398, 200, 200, 102, 100), strict=True))
    subcategories = {
        "privacy / personal data": (96, 69),
        "risky behavior / professional advice": (100, 34),
        "risky behavior / political": (109, 57),
        "risky behavior / sexually explicit": (199, 111),
        "risky behavior / violence": (204, 68),
        "deception / disinformation": (55, 18),
        "discrimination / sex": (82, 31),
        "discrimination / race": (149, 40),
        "discrimination / other": (29, 14),
    }
    assert counts(train)["subcategory"] == {name: pair[0] for name, pair in subcategories.items()}
    assert counts(test)["subcategory"] == {name: pair[1] for name, pair in subcategories.items()}
    assert sum(not pair.response for record in test for pair in record.pairs) == 17


def test_published_conversations_follow_the_papers_converter(published: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = VLGuardSource(published)
    assert "1 repeated ids got a suffix (first: Ads_303871)" in caplog.text
    assert len(source) == len({each.id for each in source}) == 2000
    assert len({each.images[0] for each in source}) == 1999
    assert len(VLGuardSource(published, two_turn=False)) == 2977
    order = random.Random(0)
    rows = json.loads((published / "train.json").read_text(encoding="utf-8"))
    for row, conversation in zip(rows, source, strict=True):
        pairs = row["instr-resp"]
        if len(pairs) > 1:
            order.shuffle(pairs)
        said = [
            text for pair in pairs for text in (*(pair[key] for key in pair if key != "response"), pair["response"])
        ]
        assert [turn.text for turn in conversation.turns] == said
        assert conversation.turns[0].content[0] == ImageRef(published / "train", row["image"])
        assert len(conversation.images) == 1
