"""How long a file of the size and shape of LLaVA's 665k mix takes: to index, to open again, to the first batch.

    python tests/benchmarks/index_scale.py FOLDER [--records 665298]

Writes the file (about 1 GB), a thousand pictures that its records share, and the index into FOLDER. Each figure is
measured in a process of its own, after its imports. Aims on two cores: indexed in 90 s and 1 GiB of memory, opened
again in 1 s, first batch in 3 s, 10,000 random records in 2 s. Exit status 1 when one is missed. How many samples a
worker reads, decodes and encodes a second is told without an aim: that depends on pictures and processor.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

sys.path[:0] = [str(Path(__file__).parents[level]) for level in (1, 2)]

from tiny import composed, save_tokenizer  # noqa: E402

from vlsafe.data.collate import Collate  # noqa: E402
from vlsafe.data.encoding import Encoding  # noqa: E402
from vlsafe.data.loader import MixtureDataset, MixtureLoader, StepSampler  # noqa: E402
from vlsafe.data.mixture import Mixture, Part  # noqa: E402
from vlsafe.data.sources.llava import LLaVASource  # noqa: E402
from vlsafe.fetch.paths import use_cache  # noqa: E402

AIMS: dict[str, float | None] = {
    "index, s": 90.0,
    "index, peak MiB": 1024.0,
    "open again, s": 1.0,
    "first batch, s": 3.0,
    "10,000 records, s": 2.0,
    "samples/s a worker": None,
}
PICTURES = 1000


def write_file(folder: Path, records: int) -> Path:
    """Conversations of one to nine questions, six in a hundred without a picture, 1.55 kB each on average."""
    path = folder / "instructions.json"
    draw = random.Random(0)
    lengths = [2, 2, 40, 80]
    words = ["the", "picture", "shows", "a", "wide", "street", "with", "people", "trees", "and", "cars", "café"]
    with path.open("w", encoding="utf-8") as file:
        for number in range(records):
            turns = []
            for turn in range(draw.choice([1, 2, 3, 4, 5, 9])):
                question = " ".join(draw.choices(words, k=8)) + "?"
                turns.append({"from": "human", "value": f"<image>\n{question}" if turn == 0 else question})
                turns.append({"from": "gpt", "value": " ".join(draw.choices(words, k=draw.choice(lengths))) + "."})
            record = {
                "id": f"{number // 2:012d}",
                "image": f"train/{number % PICTURES:012d}.jpg",
                "conversations": turns,
            }
            if number % 16 == 0:
                del record["image"]
                turns[0]["value"] = turns[0]["value"].removeprefix("<image>\n")
            text = json.dumps(record, ensure_ascii=False, indent=2)
            file.write(("[\n" if number == 0 else ",\n") + text)
        file.write("\n]\n")
    (folder / "train").mkdir(exist_ok=True)
    for number in range(PICTURES):
        Image.new("RGB", (640, 480), (number % 256, number // 4, 0)).save(folder / "train" / f"{number:012d}.jpg")
    return path


def index(path: Path) -> dict[str, float]:
    before = time.perf_counter()
    LLaVASource(path)
    seconds = time.perf_counter() - before
    return {"index, s": seconds, "index, peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def open_again(path: Path) -> dict[str, float]:
    before = time.perf_counter()
    source = LLaVASource(path)
    opened = time.perf_counter() - before
    draw = random.Random(1)
    chosen = [draw.randrange(len(source)) for _ in range(10_000)]
    before = time.perf_counter()
    for record in chosen:
        source[record]
    return {"open again, s": opened, "10,000 records, s": time.perf_counter() - before}


def first_batch(path: Path) -> dict[str, float]:
    backbone = composed(save_tokenizer(path.parent / "tokenizer"))
    encoding = Encoding(backbone.processor, max_length=None)
    before = time.perf_counter()
    source = LLaVASource(path)
    mixture = Mixture({"helpful": Part("llava:x", repeat=1)}, {"helpful": len(source)}, None, seed=0)
    dataset = MixtureDataset(mixture, {"helpful": source}, encoding)
    loader = MixtureLoader(dataset, StepSampler(len(mixture), 16), Collate(0), num_workers=2)
    batches = iter(loader)
    batch = next(batches)
    assert len(batch.ids) == 16
    seconds = time.perf_counter() - before
    for _ in range(30):
        next(batches)
    return {"first batch, s": seconds, "samples/s a worker": loader.loading.per_worker}


MEASURES: dict[str, Callable[[Path], dict[str, float]]] = {
    "index": index,
    "open_again": open_again,
    "first_batch": first_batch,
}


def measured(what: str, path: Path) -> dict[str, float]:
    """In a new process, so that its memory and its caches are its own."""
    done = subprocess.run([sys.executable, __file__, str(path), "--measure", what], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--records", type=int, default=665_298)
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        use_cache(options.folder.parent / "cache")
        print(json.dumps(MEASURES[options.measure](options.folder)))
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    path = write_file(options.folder, options.records)
    print(f"{path}: {options.records:,} records, {path.stat().st_size / 1e9:.2f} GB")
    missed = False
    for what in MEASURES:
        for name, value in measured(what, path).items():
            aim = AIMS[name]
            beyond = aim is not None and value > aim
            missed |= beyond
            print(f"{name:20} {value:9.2f}{'' if aim is None else f'   aim {aim:g}'}{'   MISSED' if beyond else ''}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
