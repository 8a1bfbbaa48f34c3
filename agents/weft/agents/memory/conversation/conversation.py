"""Conversations in Redis: the last turns word for word, those before as a summary. The only place that touches their keys."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

from redis.exceptions import RedisError

from weft import rpc
from weft.agents.memory.conversation import turns as stored
from weft.agents.memory.conversation.summaries import Made, Summarise, Summary, extracted
from weft.agents.memory.conversation.turns import Recollection, Turn

if TYPE_CHECKING:
    import redis.asyncio

log = logging.getLogger("weft.agents")

# KEYS: turns, summary. ARGV: turns the summary stood for when it was begun, turns it stands for now, text, made, seconds.
_FOLD = """
if (redis.call('HGET', KEYS[2], 'turns') or '0') ~= ARGV[1] then return 0 end
redis.call('LTRIM', KEYS[1], tonumber(ARGV[2]) - tonumber(ARGV[1]), -1)
redis.call('HSET', KEYS[2], 'turns', ARGV[2], 'text', ARGV[3], 'made', ARGV[4])
redis.call('EXPIRE', KEYS[2], ARGV[5])
return 1
"""


class MemoryUnavailable(rpc.Unavailable):
    """What is remembered cannot be reached now; try again."""

    reason = "MEMORY_UNAVAILABLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationSettings:
    """How much of a conversation is kept, and for how long.

    Raises:
        ValueError: nothing would be kept.
    """

    most: int = 40
    """Turns kept word for word, at most."""
    least: int = 20
    """As many stay when those before are summed up."""
    longest: int = 16_000
    """Characters kept of a turn."""
    summary: int = 4_000
    """Characters of the summary."""
    life: timedelta = timedelta(days=30)
    """How long it is kept after the last turn."""
    patience: timedelta = timedelta(seconds=10)
    """How long a summary may take to be written; less where the current deadline is nearer."""

    def __post_init__(self) -> None:
        if not 0 < self.least <= self.most:
            raise ValueError("at least one turn must stay, and not more than are kept")


class Conversations:
    """Conversations of all tenants.

    Args:
        client: of Redis, with replies in bytes.
        summarise: writes summaries; None: they are extracted, and say so.
        settings: how much is kept.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        *,
        summarise: Summarise | None = None,
        settings: ConversationSettings | None = None,
    ) -> None:
        self._client = client
        self._summarise = summarise
        self._settings = settings or ConversationSettings()

    def of(self, tenant: str, id_: str) -> Conversation:
        """A conversation of a tenant, which need not have begun."""
        return Conversation(self._client, tenant, id_, self._summarise, self._settings)


class Conversation:
    """What was said in one conversation. Made by `Conversations.of`. Its methods raise MemoryUnavailable."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        tenant: str,
        id_: str,
        summarise: Summarise | None,
        settings: ConversationSettings,
    ) -> None:
        self._client = client
        # In braces: both are on one node of a cluster.
        key = f"weft:memory:{{conversation:{quote(tenant, safe='')}:{quote(id_, safe='')}}}"
        self._keys = [f"{key}:turns", f"{key}:summary"]
        self._summarise = summarise
        self._settings = settings
        self._fold = client.register_script(_FOLD)

    async def append(self, *turns: Turn) -> None:
        """Adds turns. Where there are too many then, the first ones are summed up before this returns."""
        if not turns:
            return
        said = [stored.as_bytes(turn.cut(self._settings.longest)) for turn in turns]
        async with translated(), self._client.pipeline(transaction=True) as pipeline:
            pipeline.rpush(self._keys[0], *said)
            for key in self._keys:
                pipeline.expire(key, self._settings.life)
            count = (await pipeline.execute())[0]
        if count > self._settings.most:
            await self._sum_up()

    async def recall(self) -> Recollection:
        """What is remembered; nothing of a conversation that never began, or is too long ago."""
        async with translated(), self._client.pipeline(transaction=True) as pipeline:
            pipeline.lrange(self._keys[0], 0, -1)
            pipeline.hgetall(self._keys[1])
            said, summed = await pipeline.execute()
        summary = None
        if summed:
            summary = Summary(
                text=summed[b"text"].decode(),
                made=Made(summed[b"made"].decode()),
                turns=int(summed[b"turns"]),
            )
        return Recollection(summary=summary, turns=tuple(map(stored.of_bytes, said)))

    async def forget(self) -> None:
        """Deletes all of it."""
        async with translated():
            await self._client.delete(*self._keys)

    async def _sum_up(self) -> None:
        before = await self.recall()
        count = len(before.turns) - self._settings.least
        if count <= 0:  # somebody else did
            return
        summary = await self._summed_up(before.summary, before.turns[:count])
        stood_for = before.summary.turns if before.summary else 0
        life = round(self._settings.life.total_seconds())
        async with translated():
            # Where somebody else was first, theirs stays.
            await self._fold(
                keys=self._keys,
                args=[stood_for, summary.turns, summary.text, summary.made, max(1, life)],
            )

    async def _summed_up(self, before: Summary | None, turns: Sequence[Turn]) -> Summary:
        text = before.text if before else ""
        count = (before.turns if before else 0) + len(turns)
        written = await self._written(text, turns)
        if not written:
            found = extracted(text, turns, self._settings.summary)
            return Summary(text=found, made=Made.EXTRACTED, turns=count)
        # A model that was given an extract to go on from has not read what is not in it.
        made = before.made if before else Made.WRITTEN
        return Summary(text=written[: self._settings.summary], made=made, turns=count)

    async def _written(self, before: str, turns: Sequence[Turn]) -> str:
        """A summary by what the agent gave for it; empty: there is none."""
        if self._summarise is None:
            return ""
        deadline = rpc.Deadline.current()
        left = self._settings.patience.total_seconds()
        try:
            async with asyncio.timeout(left if deadline is None else min(left, deadline.seconds())):
                return (await self._summarise(before, turns)).strip()
        except Exception as failed:  # noqa: BLE001 whatever it is, the conversation goes on
            log.warning("a summary is extracted instead", extra={"failure": type(failed).__name__})
            return ""


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """What the driver raises, as MemoryUnavailable."""
    try:
        yield
    except (RedisError, OSError) as failed:
        raise MemoryUnavailable from failed
