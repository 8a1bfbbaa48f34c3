"""What stands under each heading of a document, in pieces that are better not cut."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from markdown_it import MarkdownIt
from markdown_it.token import Token

from weft.agents.memory.chunking.sentences import Span, sentences, trimmed

_LINE_END = re.compile(r"\r\n?|\n")  # as CommonMark has it
_BLANK_LINES = re.compile(r"(?:\r\n?|\n)[ \t]*(?:\r\n?|\n)\s*")
_FRONT_MATTER = re.compile(
    r"\ufeff?---[ \t]*(\r\n?|\n).*?(\r\n?|\n)---[ \t]*(\r\n?|\n|\Z)", re.DOTALL
)
_AS_LINES = frozenset({"fence", "code_block", "html_block"})


class Form(StrEnum):
    """How a document is written."""

    MARKDOWN = "text/markdown"
    """CommonMark; front matter is passed over."""
    PLAIN = "text/plain"
    """Paragraphs between blank lines, and no headings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What stands under a heading."""

    headings: tuple[str, ...]
    """The heading and those above it, the highest first; empty: before any heading."""
    pieces: tuple[Span, ...]
    """Sentences, lines of code, in order."""


def sections(text: str, form: Form) -> list[Section]:
    """The sections of a document that say something."""
    return [section for section in _sections(text, form) if section.pieces]


def _sections(text: str, form: Form) -> Iterator[Section]:
    if form is Form.PLAIN:
        yield Section(headings=(), pieces=tuple(_plain(text)))
        return
    skipped = _FRONT_MATTER.match(text)
    body = skipped.end() if skipped else 0
    lines = _line_starts(text, body)
    path: list[tuple[int, str]] = []
    pieces: list[Span] = []
    tokens = MarkdownIt("commonmark").parse(text[body:])
    for number, token in enumerate(tokens):
        if token.type == "heading_open" and token.level == 0:
            yield Section(headings=tuple(words for _, words in path), pieces=tuple(pieces))
            pieces = []
            level = int(token.tag[1:])
            path = [
                *(above for above in path if above[0] < level),
                (level, _words(tokens[number + 1])),
            ]
        elif token.map is not None and (token.type in _AS_LINES or _is_prose(token)):
            begin, end = token.map
            place = Span(lines[begin], lines[end])
            pieces += _lines(text, place) if token.type in _AS_LINES else sentences(text, place)
    yield Section(headings=tuple(words for _, words in path), pieces=tuple(pieces))


def _is_prose(token: Token) -> bool:
    # A paragraph of a list begins at its bullet, which stands in the line.
    return token.type in {"paragraph_open", "heading_open"}


def _words(inline: Token) -> str:
    """A heading without its marks."""
    parts = [
        " " if token.type in {"softbreak", "hardbreak"} else token.content
        for token in inline.children or ()
    ]
    return " ".join("".join(parts).split())


def _line_starts(text: str, body: int) -> list[int]:
    starts = [body, *(match.end() for match in _LINE_END.finditer(text, body))]
    return starts if starts[-1] == len(text) else [*starts, len(text)]


def _lines(text: str, place: Span) -> Iterator[Span]:
    begin = place.begin
    for match in _LINE_END.finditer(text, *place):
        if found := trimmed(text, Span(begin, match.start())):
            yield found
        begin = match.end()
    if rest := trimmed(text, Span(begin, place.end)):
        yield rest


def _plain(text: str) -> Iterator[Span]:
    begin = 0
    for match in _BLANK_LINES.finditer(text):
        yield from sentences(text, Span(begin, match.start()))
        begin = match.end()
    yield from sentences(text, Span(begin, len(text)))
