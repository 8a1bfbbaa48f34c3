"""What is remembered: documents, the pieces that are found, and where they stand."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from weft import rpc
from weft.agents.memory.chunking import Form, Span
from weft.agents.memory.knowledge.quoting import place_of

Metadata = Mapping[str, Any]
"""Names and values of JSON."""

MOST_TEXT = 2_000_000
_MOST_TITLE = 500
_MOST_HEADINGS = 2_000
_MOST_SOURCE = 2_000
_MOST_METADATA = 16 * 1024
_ID = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
# fmt: off
LANGUAGES = frozenset({
    "arabic", "armenian", "basque", "catalan", "danish", "dutch", "english", "finnish", "french", "german",
    "greek", "hindi", "hungarian", "indonesian", "irish", "italian", "lithuanian", "nepali", "norwegian",
    "portuguese", "romanian", "russian", "serbian", "simple", "spanish", "swedish", "tamil", "turkish",
    "yiddish",
})
# fmt: on
"""Languages PostgreSQL knows the words of (PostgreSQL 15, text search configurations); simple: no language's rules."""


class DocumentNotFound(rpc.NotFound):
    """There is no document of this id."""

    reason = "DOCUMENT_NOT_FOUND"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document to remember."""

    id: str
    """The tenant's own name for it, 1 to 200 characters. What has this id is replaced."""
    text: str
    """What it says: at most 2,000,000 characters."""
    title: str = ""
    """At most 500 characters. Empty: its first heading, else its id."""
    headings: tuple[str, ...] = ()
    """Those it stands under where it is a part of something, the highest first: found and cited with all that it says. At
    most 2,000 characters."""
    form: Form = Form.MARKDOWN
    """How it is written."""
    language: str = "english"
    """By whose rules its words are compared: one of LANGUAGES."""
    source: str = ""
    """Where it is from, such as a URL; shown with citations. At most 2,000 characters."""
    metadata: Metadata = field(default_factory=lambda: MappingProxyType({}))
    """What searches can filter by; at most 16 KiB as JSON."""

    def check(self) -> None:
        """Makes sure that it can be stored.

        Raises:
            InvalidArgument: it cannot; every reason is named.
        """
        wrong = [(name, why) for name, why in self._wrong() if why]
        if wrong:
            raise rpc.InvalidArgument(violations=wrong)

    def _wrong(self) -> Sequence[tuple[str, str]]:
        return (
            (
                "id",
                "" if _ID.fullmatch(self.id) else "must be 1 to 200 characters, none of control",
            ),
            ("text", _unfit(self.text, MOST_TEXT) or ("" if self.text.strip() else "is empty")),
            ("title", _unfit(self.title, _MOST_TITLE)),
            ("headings", _unfit("".join(self.headings), _MOST_HEADINGS)),
            ("source", _unfit(self.source, _MOST_SOURCE)),
            ("language", "" if self.language in LANGUAGES else _one_of(LANGUAGES)),
            ("metadata", _unfit_metadata(self.metadata)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDocument:
    """A document as it is stored; its text is empty in lists."""

    id: str
    title: str
    headings: tuple[str, ...]
    text: str
    form: Form
    language: str
    source: str
    metadata: Metadata
    chunks: int
    """Pieces it was cut into."""
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What became of a document that was added."""

    id: str
    changed: bool
    """Whether it was new, or another one than before."""
    chunks: int
    """Pieces it has."""
    embedded: bool
    """Whether all of them are found by meaning now. Else by their words, until the embedding catches up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """A place in a document, and what it says."""

    document: str
    """Id of the document."""
    title: str
    headings: tuple[str, ...]
    """Headings it stands under, the highest first."""
    begin: int
    """Where it begins in the text of the document, in characters (code points)."""
    end: int
    """Before where it ends."""
    quote: str
    """What stands there, to the character."""
    source: str
    """Where the document is from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A piece of a document that was found."""

    citation: Citation
    score: float
    """By which hits are ordered: comparable within one search only. By words alone, twice as much is twice as near."""
    similarity: float | None
    """Cosine of the angle between it and the question; None: it was found by its words only."""
    word_place: int | None
    """Its place among those found by words, from 1; None: it is not among them."""
    meaning_place: int | None
    """Its place among those found by meaning, from 1; None: it is not among them."""
    metadata: Metadata
    """Of the document."""

    def cite(self, quote: str) -> Citation | None:
        """The place of something that is said to stand in it; None: it does not.

        Upper and lower case, kinds of quotation marks and the space between words may differ; the citation has what
        really stands there.
        """
        place = place_of(quote, self.citation.quote)
        if place is None:
            return None
        here = self.citation
        return Citation(
            document=here.document,
            title=here.title,
            headings=here.headings,
            begin=here.begin + place.begin,
            end=here.begin + place.end,
            quote=place.of(here.quote),
            source=here.source,
        )


class Way(StrEnum):
    """How is searched."""

    HYBRID = "hybrid"
    """By words and by meaning."""
    LEXICAL = "lexical"
    """By words."""
    VECTOR = "vector"
    """By meaning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search found."""

    hits: tuple[Hit, ...]
    """Best first."""
    way: Way
    """How it was searched, which may be less than was asked for."""
    embedding: str
    """By which embedding; empty: by none."""
    because: str
    """Why it was searched otherwise than asked; empty: it was not."""


def metadata_of(text: str) -> Metadata:
    """Metadata as they were stored."""
    return MappingProxyType(json.loads(text))


def metadata_json(metadata: Metadata, field: str = "metadata") -> str:
    """Metadata as they are stored.

    Raises:
        InvalidArgument: they cannot be.
    """
    if why := _unfit_metadata(metadata):
        raise rpc.InvalidArgument(why, field=field)
    return json.dumps(dict(metadata))


def span_of(citation: Citation) -> Span:
    """The place of a citation in its document."""
    return Span(citation.begin, citation.end)


def _unfit(text: str, most: int) -> str:
    if "\0" in text or len(text) > most:
        return f"must have at most {most:,} characters, and no NUL"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds half of a surrogate pair"
    return ""


def _unfit_metadata(metadata: Metadata) -> str:
    try:
        text = json.dumps(dict(metadata), allow_nan=False)
    except (TypeError, ValueError):
        return "must be JSON"
    if len(text) > _MOST_METADATA or "\\u0000" in text or not _encodes(metadata):
        return f"must have at most {_MOST_METADATA // 1024} KiB as JSON, and no NUL"
    return ""


def _encodes(metadata: Metadata) -> bool:
    try:
        json.dumps(dict(metadata), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _one_of(names: frozenset[str]) -> str:
    return f"must be one of {', '.join(sorted(names))}"
