"""Orders that chance settles and every replay finds again.

They follow from hashes and not from the `random` module, whose shuffles may differ between versions of Python.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from weft.agents.orchestrator.patterns.answers import grouped, position
from weft.v1.workflow_pb2 import Opinion, Position

T = TypeVar("T")


def shuffled(items: Iterable[T], salt: str, text: Callable[[T], str]) -> list[T]:
    """Items in an order that their texts and a salt settle, whatever order they come in."""

    def place(item: T) -> tuple[bytes, str]:
        words = text(item)
        return hashlib.blake2b(f"{salt}/{words}".encode(), digest_size=8).digest(), words

    return sorted(items, key=place)


def as_seen(opinions: Iterable[Opinion], salt: str) -> list[Position]:
    """Opinions as somebody sees them: equal answers in one group, no names, groups and arguments in a shuffled order."""
    groups: Sequence[list[Opinion]] = shuffled(
        grouped(shuffled(opinions, salt, lambda each: each.argument)).values(),
        salt,
        lambda group: min(each.answer.strip().casefold() for each in group),
    )
    return [position(group) for group in groups]
