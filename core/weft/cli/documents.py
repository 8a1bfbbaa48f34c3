"""JSON as people write it: with // comments, commas too many, and several documents after another."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

# A string, a comment to the end of its line, or a comma with nothing but comments before its bracket.
_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*")|//[^\n]*')
_TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])')


def read(text: str) -> Iterator[Any]:
    """The documents of a text, in order.

    Raises:
        ValueError: it is not JSON; says where.
    """
    plain = _TOKEN.sub(_keep_strings, text)
    plain = _TRAILING_COMMA.sub(_keep_strings, plain)
    decoder = json.JSONDecoder()
    position = _start(plain, 0)
    while position < len(plain):
        try:
            value, position = decoder.raw_decode(plain, position)
        except json.JSONDecodeError as failed:
            raise ValueError(
                f"not JSON at line {failed.lineno}, column {failed.colno}: {failed.msg}"
            ) from failed
        yield value
        position = _start(plain, position)


def _keep_strings(match: re.Match[str]) -> str:
    return match[1] or ""


def _start(text: str, position: int) -> int:
    """Where the next document begins, the length of the text when there is none."""
    while position < len(text) and text[position].isspace():
        position += 1
    return position
