"""A data set by its name: the real client, in a process of its own, against a stand-in for the hub on loopback."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.loopback import body, send, serving

ROOT = Path(__file__).parents[3]
NAME = "lab/pictures"
FIRST, SECOND = "c0ffee" + "0" * 34, "decade" + "0" * 34
FILE = "data/train-00000-of-00001.parquet"

READ = """
import json, sys
from pathlib import Path
from vlsafe.data.images import open_image
from vlsafe.data.sources import open_source
from vlsafe.errors import VlsafeError
from vlsafe.fetch.paths import use_cache
cache, spec = sys.argv[1:]
use_cache(Path(cache))
try:
    source = open_source(json.loads(spec))
except VlsafeError as error:
    print(json.dumps({"error": str(error)}))
else:
    reds = [open_image(image).getpixel((0, 0))[0] for each in source for image in each.images]
    asked = [[piece for piece in each.turns[0].content if isinstance(piece, str)] for each in source]
    print(json.dumps({"ids": [each.id for each in source], "reds": reds, "asked": asked, "tags": source[0].tags}))
"""


def parquet(red: int) -> bytes:
    """Two rows in the conversational form, the second with a picture of that red."""
    picture = io.BytesIO()
    Image.new("RGB", (2, 2), (red, 0, 0)).save(picture, "PNG")
    said = [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": "Yes."}]
    rows = {
        "key": ["a", "b"],
        "talk": [said, said],
        "shown": [[], [{"bytes": picture.getvalue(), "path": None}]],
        "topic": ["words", "shapes"],
    }
    sink = io.BytesIO()
    pq.write_table(pa.table(rows), sink)
    return sink.getvalue()


class Hub:
    """One data set with two commits, of which the second is the newest."""

    def __init__(self) -> None:
        self.commits = {FIRST: {FILE: parquet(10)}, SECOND: {FILE: parquet(20)}}
        self.asked: list[str] = []

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(handler.path).path)
        self.asked.append(f"{handler.command} {path}")
        status, content, headers = self.answer(path, parse_qs(body(handler).decode()))
        send(handler, status, content, headers)

    def answer(self, path: str, form: dict[str, list[str]]) -> tuple[int, bytes, dict[str, str]]:
        """Status, content and headers."""
        parts = path.strip("/").split("/")
        if parts[:4] == ["api", "datasets", *NAME.split("/")]:
            return self.about(parts[4:], form)
        if parts[:4] == ["datasets", *NAME.split("/"), "resolve"]:
            commit = self.commit(parts[4])
            content = self.commits.get(commit, {}).get("/".join(parts[5:]))
            if content is not None:
                return 200, content, {"X-Repo-Commit": commit, "ETag": f'"{blob_id(content)}"'}
        return 404, b"{}", {"X-Error-Code": "EntryNotFound" if NAME in path else "RepoNotFound"}

    def about(self, question: list[str], form: dict[str, list[str]]) -> tuple[int, bytes, dict[str, str]]:
        """``revision/R`` (the repository at R), ``tree/R/FOLDER`` and ``paths-info/R``."""
        kind, revision = [*question, "main"][:2] if question else ("revision", "main")
        commit = self.commit(unquote(revision))
        if commit not in self.commits:
            return 404, b"{}", {"X-Error-Code": "RevisionNotFound"}
        files = self.commits[commit]
        if kind == "revision":
            siblings = [{"rfilename": name} for name in files]
            return 200, json.dumps({"id": NAME, "sha": commit, "siblings": siblings}).encode(), {}
        folder = {"type": "directory", "path": "data", "oid": "0" * 40, "size": 0}
        entries = [
            {"type": "file", "path": name, "size": len(content), "oid": blob_id(content)}
            for name, content in files.items()
        ]
        wanted = {"tree": [folder, *entries], "paths-info": [e for e in entries if e["path"] in form.get("paths", [])]}
        under = "/".join(question[2:])
        found = [entry for entry in wanted[kind] if str(entry["path"]).startswith(f"{under}/" if under else "")]
        return 200, json.dumps(found).encode(), {}

    @staticmethod
    def commit(revision: str) -> str:
        return SECOND if revision == "main" else revision


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@pytest.fixture
def read(tmp_path: Path) -> Iterator[Callable[..., dict]]:
    """Open ``NAME``, or another, as a source in a process that takes the stand-in for the hub."""
    hub = Hub()
    with serving(hub.respond) as address:

        def run(path: str = NAME, **options: object) -> dict:
            columns = {"id": "key", "messages": "talk", "images": "shown"}
            spec = {"kind": "hub", "path": path, "columns": columns, "tags": ["topic"], **options}
            environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
            environment |= {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
            environment |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_TELEMETRY": "1"}
            environment |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONPATH": str(ROOT)}
            command = [sys.executable, "-c", READ, str(tmp_path / "cache"), json.dumps(spec)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr[-3000:] + "\n".join(hub.asked)
            return json.loads(done.stdout.splitlines()[-1])

        yield run


@pytest.mark.slow
def test_a_data_set_is_read_by_its_name(read: Callable[..., dict]) -> None:
    assert read() == {
        "ids": ["a", "b"],
        "reds": [20],
        "asked": [["Is it?"], ["Is it?"]],
        "tags": {"topic": "words"},
    }


@pytest.mark.slow
def test_a_revision_is_that_revision(read: Callable[..., dict]) -> None:
    assert read(revision=FIRST)["reds"] == [10]


@pytest.mark.slow
def test_what_the_hub_does_not_have_is_said(read: Callable[..., dict]) -> None:
    assert "cannot open data set lab/nothing" in read("lab/nothing")["error"]
    assert "cannot open data set lab/pictures, split 'dev'" in read(split="dev")["error"]
