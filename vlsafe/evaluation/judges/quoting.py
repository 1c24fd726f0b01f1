"""Untrusted text in a judge's prompt: nothing that an answer holds can end its quotation or open another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping


def quoted(texts: Mapping[str, str]) -> str:
    """The texts as one JSON object between two marker lines.

    The markers hold a hash of the texts themselves: the same texts give the same prompt, so that replies can be kept,
    and no text can hold its own hash. JSON leaves no line end inside a text, and angle brackets are written as escapes.
    """
    body = json.dumps(dict(texts), ensure_ascii=True).replace("<", "\\u003c").replace(">", "\\u003e")
    mark = hashlib.sha256(body.encode()).hexdigest()[:24]
    return f"<evidence {mark}>\n{body}\n</evidence {mark}>"
