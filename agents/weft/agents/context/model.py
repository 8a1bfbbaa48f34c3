"""What is asked for, what is known, and where it is from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What context is wanted for."""

    tenant: str = ""
    customer: str = ""
    """Who it is about."""
    question: str = ""
    conversation: str = ""
    """Id of the conversation."""
    attributes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Whatever else providers need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something that is known."""

    text: str
    relevance: float = 1.0
    """0 to 1."""
    source: str = ""
    """Where a reader can look it up, such as a URL or the id of a record."""
    at: datetime | None = None
    """Since when it is so; None: not known."""


class Provider(Protocol):
    """Knows something. An async function of a need."""

    async def __call__(self, need: Need) -> Sequence[Fact]:
        """What is known, the most relevant first.

        Raises:
            rpc.NotFound: nothing is.
            rpc.Error: it cannot be said now.
        """
        ...


class How(StrEnum):
    """How the facts of a source came."""

    ASKED = "asked"
    """The provider said so just now."""
    CACHED = "cached"
    """The provider said so not long ago."""
    STALE = "stale"
    """The provider said so longer ago, and says nothing now."""
    FALLBACK = "fallback"
    """What stands in where the provider says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A fact with where it is from."""

    provider: str
    """Name of its source."""
    fact: Fact
    how: How
    asked_at: datetime
    """When the provider said so."""
    score: float
    """By which pieces are ordered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A source that gave nothing it should have given."""

    provider: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What is known."""

    pieces: tuple[Piece, ...]
    """The most useful first, as many as fit into the budget."""
    missing: tuple[Missing, ...]
    """Sources that did not answer, where nothing stands in for them."""
    tokens: int
    """Of the pieces, as the budget counts them."""
    left_out: int
    """Facts there was no room for."""
    took: timedelta

    def text(self) -> str:
        """All of it for a prompt or a person: numbered, with provenance, and what is missing."""
        lines = [f"[{number}] {_shown(piece)}" for number, piece in enumerate(self.pieces, 1)]
        if self.missing:
            named = ", ".join(f"{one.provider} ({one.why})" for one in self.missing)
            lines.append(f"Not known now: {named}.")
        return "\n".join(lines)


def _shown(piece: Piece) -> str:
    provenance = [piece.provider, *filter(None, [piece.fact.source])]
    if piece.how is How.FALLBACK:
        provenance.append("a stand-in")
    elif piece.how is not How.ASKED:
        ago = max(0, round((datetime.now(UTC) - piece.asked_at).total_seconds()))
        provenance.append(f"as of {ago} s ago")
    return f"{piece.fact.text} ({'; '.join(provenance)})"
