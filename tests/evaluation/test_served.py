"""A model behind a server on loopback: pictures, concurrency, retries, failures, and the stages around it."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("openai")

from fakes import REFUSAL, Toy

from tests.loopback import body, send, serving
from vlsafe.answering import Answer, Decoding
from vlsafe.conversation import Conversation, ImageRef, Turn, user
from vlsafe.errors import ConfigError, VlsafeError
from vlsafe.evaluation.judges import judge_named
from vlsafe.evaluation.records import Response, read_jsonl
from vlsafe.evaluation.served import MOST_FAILURES, ServedModel, data_url, is_address
from vlsafe.evaluation.stages import evaluate


class Server:
    """Answers chat completions; ``steps`` (status, headers) come before the first good answer."""

    def __init__(self) -> None:
        self.models = ["vllm-7b"]
        self.steps: list[tuple[int, dict[str, str]]] = []
        self.text, self.finish, self.served, self.slow = REFUSAL, "stop", "vllm-7b", 0.0
        self.asked: list[dict[str, Any]] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.url = ""

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "GET":
            rows = [{"id": name, "object": "model", "created": 0, "owned_by": "me"} for name in self.models]
            send(handler, 200, json.dumps({"object": "list", "data": rows}).encode())
        else:
            status, headers, content = self.answer(json.loads(body(handler)))
            send(handler, status, json.dumps(content).encode(), headers)

    def answer(self, request: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        with self.lock:
            self.asked.append(request)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            step = self.steps.pop(0) if self.steps else None
        time.sleep(self.slow)
        with self.lock:
            self.at_once -= 1
        if step:
            return *step, {"error": {"message": "no"}}
        choice = {"index": 0, "finish_reason": self.finish, "message": {"role": "assistant", "content": self.text}}
        usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
        head = {"id": "1", "object": "chat.completion", "created": 0, "model": self.served}
        return 200, {}, head | {"choices": [choice], "usage": usage}


@pytest.fixture
def server() -> Iterator[Server]:
    told = Server()
    with serving(told.respond) as address:
        told.url = f"{address}/v1"
        yield told


def prompts(count: int) -> list[Conversation]:
    return [Conversation(str(n), "toy", (user(f"question {n}"),)) for n in range(count)]


def answers(model: ServedModel, asked: list[Conversation], decoding: Decoding = Decoding()) -> list[Answer]:  # noqa: B008
    found = dict(model.respond(asked, decoding))
    return [found[place] for place in range(len(asked))]


def test_a_request_holds_system_prompt_picture_and_decoding(server: Server, tmp_path: Path) -> None:
    Image.new("RGB", (3, 2), "red").save(tmp_path / "red.bmp")
    asked = Conversation("a", "toy", (Turn("system", ("Be kind.",)), user(ImageRef(tmp_path, "red.bmp"), "colour?")))
    model = ServedModel(server.url)
    (answer,) = answers(model, [asked], Decoding(max_new_tokens=9))
    assert answer == Answer(REFUSAL, n_tokens=7)
    (request,) = server.asked
    assert (request["model"], request["max_tokens"], request["temperature"]) == ("vllm-7b", 9, 0)
    system, turn = request["messages"]
    assert system == {"role": "system", "content": "Be kind."}
    picture, text = turn["content"]
    assert text == {"type": "text", "text": "colour?"}
    kind, _, data = picture["image_url"]["url"].partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as seen:
        assert seen.size == (3, 2) and seen.convert("RGB").getpixel((0, 0)) == (255, 0, 0)


def test_requests_are_concurrent_within_their_bound(server: Server) -> None:
    server.slow = 0.05
    assert len(answers(ServedModel(server.url, concurrency=4), prompts(12))) == 12
    assert 1 < server.most_at_once <= 4


def test_retry_after_is_waited_for_and_retries_end(server: Server) -> None:
    server.steps = [(429, {"Retry-After": "1"})]
    began = time.monotonic()
    assert answers(ServedModel(server.url), prompts(1))[0].text == REFUSAL
    assert time.monotonic() - began >= 0.9
    server.steps, server.asked = [(500, {"retry-after-ms": "1"})] * 9, []
    (failed,) = answers(ServedModel(server.url, retries=2), prompts(1))
    assert failed.finish == "error" and failed.text == "" and "InternalServerError" in failed.error
    assert len(server.asked) == 3


def test_what_is_no_whole_answer_is_an_error_of_its_prompt(server: Server, tmp_path: Path) -> None:
    server.finish = "content_filter"
    assert "content_filter" in answers(ServedModel(server.url), prompts(1))[0].error
    server.finish = "length"
    assert answers(ServedModel(server.url), prompts(1))[0].finish == "length"
    server.served = "another"
    assert "served by 'another'" in answers(ServedModel(server.url), prompts(1))[0].error
    missing = Conversation("a", "toy", (user(ImageRef(tmp_path, "none.png"), "colour?"),))
    assert "none.png" in answers(ServedModel(server.url), [missing])[0].error


def test_a_server_that_is_down_ends_the_run(server: Server) -> None:
    server.steps = [(500, {})] * 1000
    with pytest.raises(VlsafeError, match=f"{MOST_FAILURES} requests failed in a row"):
        answers(ServedModel(server.url, retries=0, concurrency=2), prompts(200))
    assert len(server.asked) < 60


def test_wrong_requests_are_refused_in_words(server: Server) -> None:
    assert is_address("http://h/v1") and is_address("name@https://h/v1") and not is_address("owner/name")
    with pytest.raises(ConfigError, match="no address"):
        ServedModel("owner/name")
    with pytest.raises(ConfigError, match=r"'toy' needs log-likelihoods.*mode: generate"):
        answers(ServedModel(server.url), prompts(1), Decoding(options=("A", "B")))
    server.steps = [(401, {})]
    with pytest.raises(ConfigError, match=r"does not serve 'vllm-7b' to us.*OPENAI_API_KEY"):
        answers(ServedModel(server.url), prompts(1))
    server.models = ["a", "b"]
    with pytest.raises(ConfigError, match="serves a, b; say which"):
        ServedModel(server.url).identity()
    assert ServedModel(f"b@{server.url}").identity()["served"] == "b"


def test_the_stages_keep_a_servers_answers_under_its_name(server: Server, tmp_path: Path) -> None:
    judge, out = judge_named("keyword:vlsafe"), tmp_path / "out"
    metrics = evaluate([Toy(tmp_path / "p")], ServedModel(server.url), judge, Decoding(), out)
    assert metrics["toy[harm]/asr"].value == 0 and metrics["toy[benign]/over_refusal"].value == 100
    asked = len(server.asked)
    evaluate([Toy(tmp_path / "p")], ServedModel(server.url), judge, Decoding(), out)
    assert len(server.asked) == asked == 10
    server.served = "b"
    evaluate([Toy(tmp_path / "p")], ServedModel(f"b@{server.url}"), judge, Decoding(), out)
    assert len(server.asked) == 2 * asked
    rows = read_jsonl(out / "responses.jsonl", Response)
    assert {row.model["served"] for row in rows} == {"vllm-7b", "b"}
    assert all(row.image_sha256 for row in rows if row.variant == "benign")


def test_a_picture_is_sent_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 2), "blue").save(tmp_path / "turned.jpg", exif=exif)
    sent = base64.b64decode(data_url(ImageRef(tmp_path, "turned.jpg")).partition(",")[2])
    with Image.open(io.BytesIO(sent)) as picture:
        assert picture.size == (2, 4)
