"""Summaries of what was said: by whoever the agent names, else taken from it word for word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from weft.agents.memory.chunking import Span, sentences

if TYPE_CHECKING:
    from weft.agents.memory.conversation.turns import Turn

_LONGEST_LINE = 240  # characters


class Made(StrEnum):
    """How a summary was made."""

    WRITTEN = "written"
    """All of it by what the agent gave for it, such as a model."""
    EXTRACTED = "extracted"
    """At least in part of first sentences of what was said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What was said, shorter."""

    text: str
    made: Made
    turns: int
    """How many turns it stands for."""


class Summarise(Protocol):
    """Writes summaries."""

    async def __call__(self, before: str, turns: Sequence[Turn]) -> str:
        """A summary of what was said.

        Args:
            before: the summary of what was said before these turns; empty: nothing was.
            turns: what was said since, oldest first.
        """
        ...


def extracted(before: str, turns: Sequence[Turn], most: int) -> str:
    """The first sentence of each turn after the summary before, the latest where there is no room for all.

    Args:
        before: the summary before.
        turns: what was said since.
        most: characters.
    """
    lines = [*filter(None, before.splitlines()), *(_line(turn) for turn in turns)]
    kept: list[str] = []
    room = most
    for line in reversed(lines):
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    return "\n".join(reversed(kept))


def _line(turn: Turn) -> str:
    first = next(iter(sentences(turn.text, Span(0, len(turn.text)))), Span(0, 0))
    text = " ".join(first.of(turn.text).split())
    return f"{turn.name or turn.role}: {text[:_LONGEST_LINE]}"
