"""Refusals that do not all open alike."""

from __future__ import annotations

import re

from vlsafe.data.balance.wording import table


def varied(response: str, turn: int) -> tuple[str, str]:
    """``(response, template)``: the refusal in other words; ``turn`` goes round the templates.

    A refusal that opens in no known way stays as it is, with an empty template.
    """
    for rule in ("whole", "apology"):
        found = re.fullmatch(table("refusals.toml")[rule]["pattern"], response.strip(), re.DOTALL)
        if found and found["why"].strip():
            templates: list[str] = table("refusals.toml")[rule]["templates"]
            template = templates[turn % len(templates)]
            return template.replace("{why}", found["why"].strip()), template
    return response, ""
