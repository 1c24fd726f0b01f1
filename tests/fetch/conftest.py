"""A web server on loopback whose behaviour a test chooses, and a progress display that shows nothing."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from rich.progress import Progress

from vlsafe.fetch.kinds import url


@dataclass
class Site:
    """What the server offers and how it misbehaves. ``requests`` records ``(path, Range header)``."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)  # bytes to send before hanging up, one entry an answer
    failures: list[int] = field(default_factory=list)  # status codes to answer with first
    resumes: bool = True

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        self.requests.append((handler.path, wanted))
        content = self.files.get(handler.path)
        status = self.failures.pop(0) if self.failures else 200
        if content is None or status != 200:
            handler.send_error(404 if content is None else status)
            return
        tag = f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
        start = 0
        if wanted and self.resumes and handler.headers.get("If-Range") == tag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content) > 0:
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.send_header("ETag", tag)
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        stop = start + self.cuts.pop(0) if self.cuts else len(content)
        handler.wfile.write(content[start:stop])


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(url, "FIRST_PAUSE_SEC", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    offered = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            offered.respond(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    offered.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield offered
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def progress() -> Progress:
    return Progress(disable=True)
