"""Articles of the knowledge base: Markdown with front matter, cut into passages with stable ids.

An article is CommonMark. Its first heading is its title; each further heading begins a passage. It may open with front
matter, of which `intents` is read:

    ---
    intents: card_arrival, card_delivery
    ---
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.token import Token

MOST_BYTES = 64 * 1024
MOST_PASSAGE = 4_000  # characters
_MOST_HEADING = 500  # characters
_MOST_INTENTS = 100
_ARTICLE_ID = re.compile(r"[a-z0-9-]{1,100}")
_INTENT = re.compile(r"[a-z][a-z0-9_]{0,99}")
_FRONT_MATTER = re.compile(
    r"---[ \t]*\n(?P<lines>.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE
)
_OPENING = "top"  # anchor of what stands before the first section
_NOT_SLUG = re.compile(r"[^a-z0-9]+")
_LONGEST_SLUG = 80


class BadArticle(ValueError):
    """The article cannot be imported; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading and the plain text under it; the article's opening has no heading."""

    heading: str
    text: str

    @property
    def digest(self) -> bytes:
        """SHA-256 of both."""
        return hashlib.sha256(f"{self.heading}\0{self.text}".encode()).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Article:
    """An article as it is stored."""

    article_id: str
    title: str
    markdown: str
    intents: tuple[str, ...]
    sections: tuple[Section, ...]

    @property
    def digest(self) -> bytes:
        """SHA-256 of the Markdown."""
        return hashlib.sha256(self.markdown.encode()).digest()


def parse(article_id: str, markdown: str) -> Article:
    """Reads an article.

    Raises:
        BadArticle: its id, size, front matter or title is not valid, or it says nothing.
    """
    if not _ARTICLE_ID.fullmatch(article_id):
        raise BadArticle("its id must be 1 to 100 characters of a-z, 0-9 and hyphen")
    if len(markdown.encode()) > MOST_BYTES:
        raise BadArticle(f"it must be at most {MOST_BYTES // 1024} KiB")
    if "\x00" in markdown:
        raise BadArticle("it must not contain NUL characters")
    intents, body = _front_matter(markdown.replace("\r\n", "\n").removeprefix("\ufeff"))
    headed = list(_headed(MarkdownIt("commonmark").parse(body)))
    title = next((heading for heading, _ in headed if heading), "")
    if not title:
        raise BadArticle("it needs a heading, which is its title")
    if max(len(heading) for heading, _ in headed) > _MOST_HEADING:
        raise BadArticle(f"a heading must be at most {_MOST_HEADING} characters")
    sections = tuple(
        Section(heading="" if heading == title and position <= 1 else heading, text=part)
        for position, (heading, text) in enumerate(headed)
        for part in _parts(text)
    )
    if not sections:
        raise BadArticle("it says nothing under its title")
    return Article(
        article_id=article_id, title=title, markdown=markdown, intents=intents, sections=sections
    )


def anchors(sections: Iterable[Section], known: Mapping[Section, str]) -> list[str]:
    """An anchor for each section: the known one of a section that did not change, else the heading's slug.

    Args:
        sections: of one article, in order.
        known: anchors that unchanged sections had before.
    """
    sections = list(sections)
    kept = {section: known[section] for section in sections if section in known}
    taken = set(kept.values())
    given: list[str] = []
    for section in sections:
        anchor = kept.pop(section, None)  # of two equal sections only the first keeps it
        if anchor is None:
            anchor = _free(_slug(section.heading), taken)
            taken.add(anchor)
        given.append(anchor)
    return given


def _front_matter(markdown: str) -> tuple[tuple[str, ...], str]:
    if not markdown.startswith("---\n"):
        return (), markdown
    match = _FRONT_MATTER.match(markdown)
    if match is None:
        raise BadArticle("its front matter has no end: a line of ---")
    intents: list[str] = []
    for line in match["lines"].splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "intents":
            words = value.strip().strip("[]").split(",")
            intents += [word.strip() for word in words if word.strip()]
    for intent in intents:
        if not _INTENT.fullmatch(intent):
            raise BadArticle(f'its intent "{intent[:100]}" must be in snake_case')
    if len(intents) > _MOST_INTENTS:
        raise BadArticle(f"it may name at most {_MOST_INTENTS} intents")
    return tuple(dict.fromkeys(intents)), markdown[match.end() :]


def _headed(tokens: list[Token]) -> Iterator[tuple[str, str]]:
    """Pairs of a heading and the plain text under it; the first pair stands before any heading."""
    heading = ""
    lines: list[str] = []
    opened = ""
    for token in tokens:
        if token.type == "heading_open":
            yield heading, "\n".join(lines)
            lines = []
        if token.nesting == 1:
            opened = token.type
        if token.type == "inline" and opened == "heading_open":
            heading = _plain(token)
        elif token.type == "inline":
            lines.append(_plain(token))
        elif token.type in ("fence", "code_block"):
            lines.append(token.content.strip())
    yield heading, "\n".join(lines)


def _plain(inline: Token) -> str:
    """The text of a paragraph or heading without its marks."""
    parts: list[str] = []
    for token in inline.children or ():
        if token.type in ("softbreak", "hardbreak"):
            parts.append(" ")
        elif token.type == "image":
            parts.append(_plain(token))
        elif token.type != "html_inline":
            parts.append(token.content)
    return " ".join("".join(parts).split())


def _parts(text: str) -> Iterator[str]:
    """The text in pieces that fit a passage, cut at line ends where that is possible. Nothing for a blank text."""
    piece = ""
    for line in text.splitlines():
        if piece and len(piece) + 1 + len(line) > MOST_PASSAGE:
            yield piece
            piece = ""
        piece = f"{piece}\n{line}".strip()
        while len(piece) > MOST_PASSAGE:
            cut = piece.rfind(" ", 1, MOST_PASSAGE)
            cut = cut if cut > 0 else MOST_PASSAGE
            yield piece[:cut]
            piece = piece[cut:].strip()
    if piece:
        yield piece


def _slug(heading: str) -> str:
    plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode().lower()
    return _NOT_SLUG.sub("-", plain)[:_LONGEST_SLUG].strip("-") or _OPENING


def _free(slug: str, taken: set[str]) -> str:
    if slug not in taken:
        return slug
    number = 2
    while f"{slug}-{number}" in taken:
        number += 1
    return f"{slug}-{number}"
