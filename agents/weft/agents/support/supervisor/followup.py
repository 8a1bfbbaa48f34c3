"""Very short questions are read together with the one they follow: "And abroad?" after "What does a transfer cost?"."""

from __future__ import annotations

from collections.abc import Sequence

from weft.agents.support.prose import terms
from weft.support.v1.supervisor_pb2 import ROLE_CUSTOMER, Message

_SHORT = 2  # words that carry meaning


def in_context(text: str, earlier: Sequence[Message], *, most: int) -> str:
    """The question to look up: `text`, behind the customer's latest full question if it is very short."""
    if len(terms(text)) > _SHORT:
        return text
    for message in reversed(earlier):
        if message.role == ROLE_CUSTOMER and len(terms(message.text)) > _SHORT:
            joined = f"{message.text}\n{text}"
            return joined if len(joined) <= most else text
    return text
