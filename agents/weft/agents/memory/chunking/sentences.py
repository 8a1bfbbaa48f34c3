"""Sentences of prose, by their places."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

# An end mark and closing quotes or brackets, before a space; the marks of Chinese and Japanese need none.
_END = re.compile(
    r"""[.!?…]+["'\u201d\u2019»)\]*_]*(?=\s)|[\u3002\uff01\uff1f]+[\u300d\u300f\u201d\uff09]*"""
)
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:e\.g|i\.e|etc|approx|incl|max|min|mr|mrs|ms|dr|no|st|vs|fig|sec|art|bzw|z\.b|d\.h|nr|p|pp)\.$",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"^\s*\d{1,3}\.$")
_LONGEST_ABBREVIATION = 10


class Span(NamedTuple):
    """A place in a text, in characters (code points): from `begin` to before `end`."""

    begin: int
    end: int

    def __bool__(self) -> bool:
        """Whether anything is there."""
        return self.begin < self.end

    def of(self, text: str) -> str:
        """What stands there."""
        return text[self.begin : self.end]


def sentences(text: str, within: Span) -> Iterator[Span]:
    """The sentences of a paragraph, without the space around them.

    Args:
        text: what it stands in.
        within: where it stands.
    """
    begin = within.begin
    for match in _END.finditer(text, within.begin, within.end):
        if _goes_on(text, begin, match.end(), within.end):
            continue
        if found := trimmed(text, Span(begin, match.end())):
            yield found
        begin = match.end()
    if rest := trimmed(text, Span(begin, within.end)):
        yield rest


def _goes_on(text: str, begin: int, end: int, last: int) -> bool:
    """Whether a mark does not end its sentence."""
    head = text[max(begin, end - _LONGEST_ABBREVIATION) : end]
    if _ABBREVIATION.search(head) or _NUMBERED.fullmatch(text[begin:end]):
        return True
    following = text[end : min(last, end + 4)].lstrip()
    return following[:1].islower()


def trimmed(text: str, span: Span) -> Span:
    """A place without the space at its ends."""
    begin, end = span
    while begin < end and text[begin].isspace():
        begin += 1
    while begin < end and text[end - 1].isspace():
        end -= 1
    return Span(begin, end)
