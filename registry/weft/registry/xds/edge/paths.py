"""Path templates of google.api.http as patterns of RE2, and which of two comes first."""

from __future__ import annotations

import re

_VARIABLE = re.compile(r"\{[A-Za-z0-9_.]+(?:=([^{}]*))?\}")
_VERB = re.compile(r":[^/{}]+\Z")


def pattern(template: str) -> str:
    """What a path that a template fits is like, without its query."""
    segments = _VARIABLE.sub(lambda found: found[1] or "*", template)
    verb = _VERB.search(segments)
    ending = "" if verb is None else verb[0]
    path = segments.removesuffix(ending)
    made = "".join(_segment(each) for each in path.split("/")[1:])
    return (made or "/") + re.escape(ending)


def rank(template: str) -> int:
    """Templates of a lower rank are tried first: those without wildcards, those with a verb, `*`, `**`."""
    segments = _VARIABLE.sub(lambda found: found[1] or "*", template)
    if "*" not in segments:
        return 0
    if "**" in segments:
        return 3
    return 1 if _VERB.search(segments) else 2


def _segment(text: str) -> str:
    if text == "**":
        return "(?:/.*)?"
    return "/[^/]+" if text == "*" else f"/{re.escape(text)}"
