"""A site on loopback that misbehaves as a test wants it to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler


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
