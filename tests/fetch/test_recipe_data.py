"""What `fetch` brings for the recipes lies where their configs look for it: small archives of the published layout."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from PIL import Image

from tests.fetch.loopback import Hub, Site
from vlsafe.__main__ import main
from vlsafe.data.images import open_image
from vlsafe.data.sources import open_source
from vlsafe.errors import DataError
from vlsafe.fetch.paths import resolved, use_cache

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
OCR = "ocr_vqa/images/1421542.jpg"
NAMED = [
    "coco/train2017/000000033471.jpg",
    "gqa/images/2354786.jpg",
    OCR,
    "textvqa/train_images/011e7e629fb9ae7b.jpg",
    "vg/VG_100K/2.jpg",
    "vg/VG_100K_2/1.jpg",
]
"""A picture of each set, as the 665k mix names it."""
ARCHIVES = {
    "images.cocodataset.org/zips/train2017.zip": ["train2017/000000033471.jpg"],
    "downloads.cs.stanford.edu/nlp/data/gqa/images.zip": ["images/2354786.jpg"],
    "dl.fbaipublicfiles.com/textvqa/images/train_val_images.zip": ["train_images/011e7e629fb9ae7b.jpg"],
    "cs.stanford.edu/people/rak248/VG_100K_2/images.zip": ["VG_100K/2.jpg"],
    "cs.stanford.edu/people/rak248/VG_100K_2/images2.zip": ["VG_100K_2/1.jpg"],
}
"""The members of each archive, as published."""
SETS = ["coco-train2017", "gqa-images", "textvqa-images", "visual-genome"]


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(file, "JPEG")
    return file.getvalue()


def packed(members: list[str]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{members[0].split('/')[0]}/", b"")
        for member in members:
            archive.writestr(member, picture())
    return file.getvalue()


def llava_records(names: list[str]) -> bytes:
    said = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "Red."}]
    rows = [{"id": str(n), "image": name, "conversations": said} for n, name in enumerate(names)]
    return json.dumps(
        [*rows, {"id": "text", "model": "", "conversations": [{**said[0], "value": "Hi"}, said[1]]}]
    ).encode()


@pytest.fixture
def served(site: Site, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The catalogue's own addresses, answered on loopback."""
    site.files = {f"/{where}": packed(members) for where, members in ARCHIVES.items()}
    get = requests.get
    monkeypatch.setattr(requests, "get", lambda url, **more: get(f"{site.address}/{url.split('://')[1]}", **more))
    hub.files = {"llava_v1_5_mix665k.json": llava_records(NAMED), "README.md": b"about", "other.json": b"[]"}
    return hub


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    use_cache(tmp_path / "cache")
    yield tmp_path / "cache"
    use_cache(None)


def sources_of_recipes(name: str) -> list[Any]:
    """Every source that any recipe names in the asset ``name``, as it stands there."""
    found: list[Any] = []

    def look(value: Any) -> None:
        path = value.get("path", "") if isinstance(value, dict) else value
        if isinstance(path, str) and f"cache:{name}/" in path:
            found.append(value)
        elif isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                look(inner)

    for file in sorted(EXPERIMENTS.rglob("*.yaml")):
        look(yaml.safe_load(file.read_text()))
    assert found, name
    return [json.loads(text) for text in dict.fromkeys(json.dumps(source) for source in found)]


def ocr_vqa(cache: Path) -> None:
    """The set that has no archive: put there by hand, as the catalogue says."""
    file = cache / "llava-665k" / OCR
    file.parent.mkdir(parents=True)
    file.write_bytes(picture())


@pytest.mark.parametrize(
    "order", [["llava-665k", *SETS], [*SETS, "llava-665k"]], ids=["records first", "pictures first"]
)
def test_the_665k_mix_and_its_pictures_open_as_the_recipes_name_them(
    served: Hub, cache: Path, order: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", *order, "--cache", str(cache)]) == 0, capsys.readouterr()
    for spec in sources_of_recipes("llava-665k"):
        with pytest.raises(DataError, match=f"1 problem.*missing picture .*{OCR}|missing picture .*{OCR}"):
            open_source(spec)
    ocr_vqa(cache)
    for spec in sources_of_recipes("llava-665k"):
        source = open_source(spec)
        assert [image.name for each in source for image in each.images] == NAMED and len(source) == len(NAMED) + 1
        assert all(open_image(image).size == (8, 6) for each in source for image in each.images)
    assert Path(resolved("cache:textvqa-images/train_images/011e7e629fb9ae7b.jpg")).is_file()


def test_records_fetched_again_leave_the_pictures_alone(served: Hub, cache: Path) -> None:
    assert main(["fetch", "llava-665k", *SETS, "--cache", str(cache)]) == 0
    ocr_vqa(cache)
    (cache / "llava-665k" / "llava_v1_5_mix665k.json").write_bytes(b"damaged")
    (cache / "llava-665k" / "notes.txt").write_text("mine")
    assert main(["fetch", "llava-665k", *SETS, "--cache", str(cache)]) == 0
    assert len(open_source(sources_of_recipes("llava-665k")[0])) == len(NAMED) + 1
    assert (cache / "llava-665k" / "notes.txt").read_text() == "mine"


def test_a_folder_with_files_of_the_users_own_is_not_taken_for_fetched(
    served: Hub, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (cache / "llava-665k").mkdir(parents=True)
    (cache / "llava-665k" / "llava_v1_5_mix665k.json").write_text("mine")
    assert main(["fetch", "llava-665k", "--cache", str(cache)]) == 1
    assert "was not made by fetch" in capsys.readouterr().err
    assert (cache / "llava-665k" / "llava_v1_5_mix665k.json").read_text() == "mine"


def test_the_captions_of_stage_1_open_as_the_recipes_name_them(served: Hub, cache: Path) -> None:
    name = "00453/004539375.jpg"
    served.files = {"blip_laion_cc_sbu_558k.json": llava_records([name]), "images.zip": packed([name])}
    assert main(["fetch", "llava-pretrain", "--cache", str(cache)]) == 0
    for spec in sources_of_recipes("llava-pretrain"):
        source = open_source(spec)
        assert [image.name for each in source for image in each.images] == [name]
        assert open_image(source[0].images[0]).size == (8, 6)
