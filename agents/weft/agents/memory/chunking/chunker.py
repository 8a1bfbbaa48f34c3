"""Chunks: as many whole sentences of a section as fit, the last ones of a chunk again at the begin of the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from weft.agents.memory.chunking.sections import Form, sections
from weft.agents.memory.chunking.sentences import Span, trimmed


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunking:
    """How documents are cut. Lengths are in characters.

    The model that ships reads 256 word pieces of a chunk, which are about 1,100 characters of English.

    Raises:
        ValueError: the overlap leaves no room.
    """

    most: int = 1_000
    """Longest chunk."""
    overlap: int = 150
    """How much of a chunk, at most, is repeated by the next one of its section. Whole sentences."""

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= self.most // 2:
            raise ValueError("an overlap is from 0 to half of the longest chunk")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of a document."""

    begin: int
    """Where it begins in the document, in characters (code points)."""
    end: int
    """Before where it ends."""
    text: str
    """What stands there, to the character."""
    headings: tuple[str, ...]
    """Headings it stands under, the highest first."""


def chunks(text: str, form: Form, settings: Chunking | None = None) -> list[Chunk]:
    """The chunks of a document, in order. None holds text of two sections."""
    settings = settings or Chunking()
    return [
        Chunk(begin=place.begin, end=place.end, text=place.of(text), headings=section.headings)
        for section in sections(text, form)
        for place in _packed(list(_cut(text, section.pieces, settings.most)), settings)
    ]


def _packed(pieces: Sequence[Span], settings: Chunking) -> Iterator[Span]:
    first = 0
    for number, piece in enumerate(pieces):
        if piece.end - pieces[first].begin <= settings.most:
            continue
        yield Span(pieces[first].begin, pieces[number - 1].end)
        first = _repeated(pieces, first, number, settings)
    if pieces:
        yield Span(pieces[first].begin, pieces[-1].end)


def _repeated(pieces: Sequence[Span], first: int, number: int, settings: Chunking) -> int:
    """The piece that the next chunk begins with, where `number` did not fit into the one that began with `first`."""
    begin = number
    while (
        begin - 1 > first
        and pieces[number - 1].end - pieces[begin - 1].begin <= settings.overlap
        and pieces[number].end - pieces[begin - 1].begin <= settings.most
    ):
        begin -= 1
    return begin


def _cut(text: str, pieces: Sequence[Span], most: int) -> Iterator[Span]:
    """The pieces, and what is too long cut at a space where there is one."""
    for piece in pieces:
        begin = piece.begin
        while piece.end - begin > most:
            end = begin + most
            while end > begin and not text[end].isspace():
                end -= 1
            end = end if end > begin else begin + most
            if found := trimmed(text, Span(begin, end)):
                yield found
            begin = end
        if rest := trimmed(text, Span(begin, piece.end)):
            yield rest
