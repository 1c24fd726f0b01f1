"""Questions to an OpenAI-compatible endpoint: each paid for once, kept on disk, and answered in a schema or not at all.

Retries, back-off and ``Retry-After`` are the ``openai`` client's own. This file adds what a judge needs beyond them:
replies are kept by the content of the question, a reply of another model than the one asked for is refused, and a
failure is an error of that one question.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vlsafe.errors import ConfigError, VlsafeError
from vlsafe.evaluation.records import write_text
from vlsafe.fetch.paths import cache_directory

MOST_FAILURES = 20
"""Failed questions in a row after which the endpoint is taken to be down."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One question. ``schema`` is the JSON schema of an object, all of whose properties the reply must hold."""

    system: str
    user: str
    schema: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """``values`` follow the schema, or ``error`` says why there are none."""

    values: dict[str, Any]
    error: str = ""


@dataclass(slots=True)
class Usage:
    """What was asked and used. ``cost`` is in the currency of the prices, 0 without prices."""

    asked: int = 0
    kept: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


class Endpoint:
    """A model at an OpenAI-compatible URL.

    Args:
        where: ``MODEL@URL``; without a URL the client's own default. The key is read from the environment variable
            ``key_variable``, as is the custom, and never written anywhere.
        concurrency: questions under way at once.
        retries: of one question, after 408, 409, 429, 5xx and lost connections.
        timeout: seconds for one reply.
        max_tokens: of one reply.
        served: the exact name that replies must carry; by default the model's own, or the first dated form of it.
        offline: ask nothing; what is not kept is an error.
        cache: folder of kept replies, by default ``judges`` in the cache directory.
        prices: ``{input, output}`` for a million tokens.
    """

    def __init__(
        self,
        where: str,
        *,
        concurrency: int,
        retries: int,
        timeout: float,
        max_tokens: int,
        served: str | None,
        offline: bool,
        cache: Path | None,
        key_variable: str,
        prices: Mapping[str, float] | None,
    ) -> None:
        self.model, mark, url = where.partition("@")
        self.url = url or None
        if not self.model or (mark and not url.startswith(("http://", "https://"))):
            raise ConfigError(f"judge {where!r} must be written MODEL@URL, as in judge-7b@http://127.0.0.1:8000/v1")
        if prices is not None and set(prices) != {"input", "output"}:
            raise ConfigError(f"prices are {dict(prices)}; give `input` and `output`, for a million tokens each")
        self._concurrency, self._retries, self._timeout = concurrency, retries, timeout
        self._max_tokens, self._served, self._offline = max_tokens, served, offline
        self._cache = cache or cache_directory() / "judges"
        self._key_variable, self._prices = key_variable, prices
        self.usage = Usage()
        self._pinned: str | None = None
        self._lock = threading.Lock()
        self._failures_in_a_row = 0

    @property
    def identity(self) -> str:
        """Which model at which address: another address may serve other weights by the same name."""
        address = hashlib.sha256((self.url or "default").encode()).hexdigest()[:12]
        return f"{self.model} {address} {self._served or ''} {self._max_tokens}"

    def ask(self, questions: Sequence[Ask]) -> list[Reply]:
        """A reply to each, in order.

        Raises ConfigError when the endpoint refuses the key or does not know the model, VlsafeError when it fails many
        times in a row. What has been answered until then is kept.
        """
        with ThreadPoolExecutor(self._concurrency) as pool:
            waiting = [pool.submit(self._reply, question) for question in questions]
            try:
                return [each.result() for each in waiting]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def told(self) -> str:
        use = self.usage
        cost = f", cost {use.cost:.4f}" if self._prices else ""
        return (
            f"{self.model}: {use.asked} asked, {use.kept} from the cache, {use.failed} failed; "
            f"{use.prompt_tokens} + {use.completion_tokens} tokens{cost}"
        )

    def _reply(self, question: Ask) -> Reply:
        request = self._request(question)
        file = self._file(request)
        kept = self._kept(file, request, question)
        if kept is not None:
            with self._lock:
                self.usage.kept += 1
            return kept
        if self._offline:
            return Reply({}, "offline, and no reply to this question is kept")
        reply = self._fetched(request, file, question)
        with self._lock:
            self.usage.asked += 1
            self.usage.failed += bool(reply.error)
            self._failures_in_a_row = self._failures_in_a_row + 1 if reply.error else 0
            if self._failures_in_a_row >= MOST_FAILURES:
                raise VlsafeError(
                    f"{self.model}: {MOST_FAILURES} questions failed in a row, the last with: {reply.error}. Is the "
                    "endpoint up? Run again when it is; what was answered is kept"
                )
        return reply

    def _request(self, question: Ask) -> dict[str, Any]:
        schema = {"name": "reply", "strict": True, "schema": question.schema}
        return {
            "model": self.model,
            "messages": [{"role": "system", "content": question.system}, {"role": "user", "content": question.user}],
            "temperature": 0.0,
            "max_tokens": self._max_tokens,
            "response_format": {"type": "json_schema", "json_schema": schema},
        }

    def _file(self, request: Mapping[str, Any]) -> Path:
        key = hashlib.sha256(json.dumps([self.url, request], sort_keys=True).encode()).hexdigest()
        return self._cache / key[:2] / f"{key}.json"

    def _kept(self, file: Path, request: Mapping[str, Any], question: Ask) -> Reply | None:
        try:
            row = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(row, dict) or row.get("request") != request or self._wrong_model(str(row.get("served"))):
            return None
        reply = parsed(str(row.get("content")), question.schema)
        return None if reply.error else reply

    def _fetched(self, request: dict[str, Any], file: Path, question: Ask) -> Reply:
        import openai

        try:
            answer = self._client.chat.completions.create(**request)
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise ConfigError(
                f"the endpoint does not serve {self.model!r} to us ({type(error).__name__}, {error.status_code}); "
                f"check model and URL, and that the environment variable {self._key_variable} holds the key"
            ) from None
        except (openai.APIError, ValueError) as error:  # ValueError: a body that is no JSON
            return Reply({}, f"{type(error).__name__}: {str(error)[:200]}")
        return self._checked(answer, request, file, question)

    def _checked(self, answer: Any, request: dict[str, Any], file: Path, question: Ask) -> Reply:
        if isinstance(answer, str) or not answer.choices:
            return Reply({}, "the endpoint sent no completion")
        self._count(answer.usage)
        if wrong := self._wrong_model(str(answer.model)):
            return Reply({}, wrong)
        choice = answer.choices[0]
        if choice.finish_reason != "stop" or choice.message.refusal or not choice.message.content:
            return Reply(
                {}, f"no whole reply: finish {choice.finish_reason!r}, {choice.message.refusal or 'no refusal'}"
            )
        reply = parsed(choice.message.content, question.schema)
        if not reply.error:
            row = {"request": request, "served": answer.model, "content": choice.message.content}
            write_text(file, json.dumps(row, ensure_ascii=False))
        return reply

    def _wrong_model(self, served: str) -> str:
        """Why a reply of ``served`` does not count; the first dated form of the model's name is held on to."""
        with self._lock:
            if self._served is None and (served == self.model or served.startswith(f"{self.model}-2")):
                self._pinned = served if self._pinned is None else self._pinned
            wanted = self._served or self._pinned or self.model
        return "" if served == wanted else f"asked for {wanted!r}, served by {served!r}"

    def _count(self, usage: Any) -> None:
        if usage is None:
            return
        with self._lock:
            self.usage.prompt_tokens += usage.prompt_tokens
            self.usage.completion_tokens += usage.completion_tokens
            if self._prices:
                spent = usage.prompt_tokens * self._prices["input"] + usage.completion_tokens * self._prices["output"]
                self.usage.cost += spent / 1e6

    @cached_property
    def _client(self) -> Any:
        return openai_client(self.url, self._key_variable, self._retries, self._timeout)


def openai_client(url: str | None, key_variable: str, retries: int, timeout: float) -> Any:
    """The client of judges and served models. Raises ConfigError where the package is not installed."""
    try:
        import openai
    except ImportError as error:
        raise ConfigError("an endpoint needs the openai client: pip install 'vlsafe[judge]'") from error
    # A server of one's own asks for no key, but the client insists on one.
    key = os.environ.get(key_variable) or "none"
    return openai.OpenAI(base_url=url, api_key=key, max_retries=retries, timeout=timeout)


def parsed(content: str, schema: Mapping[str, Any]) -> Reply:
    """The whole reply as an object of the schema: nothing is searched for in it, so nothing in it can be mistaken.

    Knows the types ``string`` (with ``enum``) and ``boolean``, all that our schemas use.
    """
    try:
        values = json.loads(content)
    except ValueError:
        return Reply({}, f"not JSON: {content[:100]!r}")
    properties: Mapping[str, Any] = schema["properties"]
    if not isinstance(values, dict) or set(values) != set(properties):
        return Reply({}, f"not an object with exactly {', '.join(properties)}: {content[:100]!r}")
    for key, kind in properties.items():
        right = bool if kind["type"] == "boolean" else str
        if type(values[key]) is not right or ("enum" in kind and values[key] not in kind["enum"]):
            return Reply({}, f"{key!r} is {values[key]!r}")
    return Reply(values)
