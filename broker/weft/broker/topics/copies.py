"""Puts copies of a message into queues: all at once, each with its own content where that is large."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from weft import rpc
from weft.broker.errors import StoreUnavailable
from weft.broker.layout import Entry
from weft.broker.publishing.rounds import Sink
from weft.broker.publishing.routing import Routed
from weft.broker.queues import Queue


class Puts(Protocol):
    """What is used of weft.broker.publishing.Publishing."""

    def put(self, queue: Queue, routed: Routed, sink: Sink, number: int) -> None:
        """Hands a message over whose queue is known."""


class KeepsLarge(Protocol):
    """What is used of weft.broker.publishing.Payloads."""

    def too_large(self, entry: Entry) -> bool:
        """Whether the message must go to PostgreSQL."""

    async def store(self, entry: Entry) -> None:
        """Puts the message into PostgreSQL and leaves its id in the entry."""

    async def abandon(self, entry: Entry) -> None:
        """Takes it out again."""


class Copies:
    """Copies.

    Args:
        publishing: takes them.
        payloads: keep the large ones.
    """

    def __init__(self, publishing: Puts, payloads: KeepsLarge) -> None:
        self._publishing = publishing
        self._payloads = payloads

    async def put(self, copies: Sequence[tuple[Queue, Routed]]) -> Mapping[str, rpc.Error]:
        """Puts them, and returns when all are answered: why each queue refused, of those that did."""
        if not copies:
            return {}
        answers = _Answers(len(copies))
        large = []
        for number, (queue, copy) in enumerate(copies):
            if self._payloads.too_large(copy):
                try:
                    await self._payloads.store(copy)
                except rpc.Error as failed:
                    answers.refused(number, failed)
                    continue
                large.append(number)
            self._publishing.put(queue, copy, answers, number)
        await answers.all
        for number in large:
            refusal = answers.refusals.get(number)
            # After a lost connection it may be in its queue, with its content.
            if number in answers.duplicates or not isinstance(refusal, StoreUnavailable | None):
                await self._payloads.abandon(copies[number][1])
        return {copies[number][0].name: why for number, why in sorted(answers.refusals.items())}


class _Answers:
    """What became of each copy."""

    def __init__(self, count: int) -> None:
        self.refusals: dict[int, rpc.Error] = {}
        self.duplicates: set[int] = set()
        self.all: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = count

    def accepted(self, _: int) -> None:
        """One is stored."""
        self._left -= 1
        if not self._left and not self.all.done():  # whoever waited may have gone
            self.all.set_result(None)

    def duplicate(self, number: int) -> None:
        """One was stored before."""
        self.duplicates.add(number)
        self.accepted(number)

    def refused(self, number: int, error: rpc.Error) -> None:
        """One is not stored."""
        self.refusals[number] = error
        self.accepted(number)

    def settled(self) -> None:
        """Nothing gathers here."""
