"""A model behind an OpenAI-compatible server (vLLM, SGLang) as a Responder: concurrent requests, data URLs."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cached_property
from io import BytesIO
from typing import Any

from vlsafe.answering import Answer, Decoding
from vlsafe.conversation import Conversation, ImageRef, Turn
from vlsafe.data.images import open_image
from vlsafe.errors import ConfigError, DataError, VlsafeError
from vlsafe.evaluation.judges.endpoint import MOST_FAILURES, openai_client


def is_address(model: str) -> bool:
    """``http://host/v1``, or ``NAME@http://host/v1``."""
    return model.rpartition("@")[2].startswith(("http://", "https://"))


class ServedModel:
    """Answers prompts by chat completions (:class:`vlsafe.answering.Responder`).

    The server applies its own chat template, and nobody here can see its weights: answers are kept under the model's
    name and the server's address, so another model needs another name, or another folder. Retries, back-off and
    ``Retry-After`` are the client's own; a request that fails all the same is an Answer with its error, and
    MOST_FAILURES of them in a row end the run.

    Args:
        where: ``NAME@URL``; the name may be left out where the server has one model.
        concurrency: requests under way at once.
        retries: of one request, after 408, 409, 429, 5xx and lost connections.
        timeout: seconds for one answer.
        key_variable: environment variable that holds the key, if the server wants one.
    """

    def __init__(
        self,
        where: str,
        concurrency: int = 16,
        retries: int = 5,
        timeout: float = 600.0,
        key_variable: str = "OPENAI_API_KEY",
    ) -> None:
        self._name, _, self.url = where.rpartition("@")
        if not is_address(where):
            raise ConfigError(f"model {where!r} is no address; write http://HOST/v1 or NAME@http://HOST/v1")
        self._concurrency = concurrency
        self._client = openai_client(self.url, key_variable, retries, timeout)
        self._key_variable = key_variable

    @cached_property
    def name(self) -> str:
        """Raises ConfigError when none was given and the server does not have exactly one."""
        if self._name:
            return self._name
        import openai

        try:
            served = [model.id for model in self._client.models.list()]
        except (openai.APIError, ValueError) as error:
            raise ConfigError(f"{self.url}: {_told(error)}; is an OpenAI-compatible server there?") from None
        if len(served) != 1:
            raise ConfigError(f"{self.url} serves {', '.join(served) or 'no model'}; say which, as NAME@{self.url}")
        return served[0]

    def identity(self) -> dict[str, Any]:
        return {"served": self.name, "address": hashlib.sha256(self.url.encode()).hexdigest()[:12]}

    def respond(self, prompts: list[Conversation], decoding: Decoding) -> Iterator[tuple[int, Answer]]:
        if decoding.options:
            raise ConfigError(
                f"{prompts[0].source!r} needs log-likelihoods, which a server's chat completions do not give; evaluate "
                "the weights themselves, or use a benchmark that reads written answers (mmlu with mode: generate)"
            )
        failures = 0
        with ThreadPoolExecutor(self._concurrency) as pool:
            waiting = {pool.submit(self._answer, prompt, decoding): place for place, prompt in enumerate(prompts)}
            try:
                for done in as_completed(waiting):
                    answer = done.result()
                    failures = failures + 1 if answer.error else 0
                    yield waiting[done], answer
                    if failures >= MOST_FAILURES:
                        raise VlsafeError(
                            f"{self.url}: {failures} requests failed in a row, the last with: {answer.error}. Is the "
                            "server up? Run again when it is; what was answered is kept"
                        )
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _answer(self, prompt: Conversation, decoding: Decoding) -> Answer:
        import openai

        try:
            reply = self._client.chat.completions.create(
                model=self.name,
                messages=[message(turn) for turn in prompt.turns],
                max_tokens=decoding.max_new_tokens,
                temperature=decoding.temperature,
            )
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise ConfigError(
                f"{self.url} does not serve {self.name!r} to us ({_told(error)}); check model and address, and that "
                f"the environment variable {self._key_variable} holds the key"
            ) from None
        except (openai.APIError, DataError, ValueError) as error:  # ValueError: a body that is no JSON
            return _failed(_told(error))
        if isinstance(reply, str) or not reply.choices:
            return _failed("the server sent no completion")
        if reply.model != self.name and not reply.model.startswith(f"{self.name}-2"):  # a dated form of the name
            return _failed(f"asked for {self.name!r}, served by {reply.model!r}")
        choice = reply.choices[0]
        if choice.finish_reason not in ("stop", "length"):
            return _failed(f"the server ended the answer with {choice.finish_reason!r}")
        text = choice.message.content or choice.message.refusal or ""
        tokens = reply.usage.completion_tokens if reply.usage else 0
        return Answer(text.strip(), "", tokens, "length" if choice.finish_reason == "length" else "eos")


def message(turn: Turn) -> dict[str, Any]:
    """A turn as the chat-completions API has it; plain text where there is no picture, which every server reads.

    Raises DataError for a picture that cannot be read.
    """
    if not turn.images:
        return {"role": turn.role, "content": turn.text}
    content = [
        {"type": "text", "text": piece}
        if isinstance(piece, str)
        else {"type": "image_url", "image_url": {"url": data_url(piece)}}
        for piece in turn.content
    ]
    return {"role": turn.role, "content": content}


def data_url(ref: ImageRef) -> str:
    """The decoded picture as PNG, the pixels that a model of ours would see: upright, RGB. Raises DataError."""
    buffer = BytesIO()
    with open_image(ref) as picture:
        picture.save(buffer, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _failed(why: str) -> Answer:
    return Answer("", finish="error", error=why)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"
