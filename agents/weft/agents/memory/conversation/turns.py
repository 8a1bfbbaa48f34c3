"""What was said in a conversation."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

import orjson

from weft.agents.memory.conversation.summaries import Summary


class Role(StrEnum):
    """Who said something."""

    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Something that was said."""

    role: Role
    text: str
    name: str = ""
    """Who said it: an agent, a tool."""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    is_cut: bool = False
    """Whether the text was longer than what is kept of it."""

    def cut(self, most: int) -> Turn:
        """The turn with a text of so many characters at most."""
        if len(self.text) <= most:
            return self
        return Turn(role=self.role, text=self.text[:most], name=self.name, at=self.at, is_cut=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recollection:
    """What is remembered of a conversation."""

    summary: Summary | None
    """What was said before `turns`; None: nothing was."""
    turns: tuple[Turn, ...]
    """The last ones, word for word, oldest first."""


def as_bytes(turn: Turn) -> bytes:
    """A turn as it is stored."""
    return orjson.dumps(turn)


def of_bytes(kept: bytes) -> Turn:
    """The turn that was stored."""
    read = orjson.loads(kept)
    return Turn(role=Role(read.pop("role")), at=datetime.fromisoformat(read.pop("at")), **read)
