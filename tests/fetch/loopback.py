"""A site on loopback that misbehaves as a test wants it to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit


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


COMMIT = "c0ffee" + "0" * 34


@dataclass
class Hub:
    """One repository; ``refusal`` is ``(status, the hub's error code)`` for every question about it."""

    files: dict[str, bytes] = field(default_factory=dict)
    refusal: tuple[int, str] | None = None

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(handler.path).path)
        if self.refusal:
            status, code = self.refusal
            _send(handler, status, b"{}", {"X-Error-Code": code})
        elif path.startswith("/api/") and "/tree/" in path:
            _send(handler, 200, json.dumps([self.entry(name) for name in self.files]).encode())
        elif path.startswith("/api/"):
            siblings = [{"rfilename": name} for name in self.files]
            _send(handler, 200, json.dumps({"id": "lab/thing", "sha": COMMIT, "siblings": siblings}).encode())
        else:
            content = self.files[path.partition(f"/resolve/{COMMIT}/")[2]]
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{_git_hash(content)}"'}
            _send(handler, 200, content, headers)

    def entry(self, name: str) -> dict[str, object]:
        content = self.files[name]
        return {"type": "file", "path": name, "size": len(content), "oid": _git_hash(content)}


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _send(handler: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(content)
