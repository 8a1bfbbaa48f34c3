"""Results kept for a while, of tools that have no effects.

A result belongs to the tool, its arguments in one canonical form, and those whom its tool says that it is for. A tool may
have used further tools to find it: only who may use all of those gets it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import redis.asyncio
import redis.exceptions
from google.protobuf.message import Message

from weft.agents.tools.callers import Caller
from weft.agents.tools.tool import Tool

log = logging.getLogger("weft.agents.tools")

_MOST_BYTES = 16 * 1024 * 1024
_OVERHEAD = 400  # bytes an entry takes beside what it holds
_SHARE = 8  # no entry is larger than this part of the room
_PREFIX = "weft:tools:kept:"
_PATIENCE = 1.0  # seconds that Redis has to answer
_FAILED = (redis.exceptions.RedisError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A result.

    Attributes:
        result: serialized.
        needs: scopes of all tools that were used to find it.
    """

    result: bytes
    needs: frozenset[str]


class Shelf(Protocol):
    """Where results are kept. It never fails: what cannot be found is not there."""

    async def get(self, key: str) -> Kept | None:
        """A result; None: there is none."""
        ...

    async def put(self, key: str, kept: Kept, ttl: timedelta) -> None:
        """Keeps a result for so long, if there is room."""
        ...


class MemoryShelf:
    """Keeps results in this process; those that were not asked for go first.

    Args:
        most_bytes: of all results together.
        clock: seconds, monotonic.
    """

    def __init__(
        self, most_bytes: int = _MOST_BYTES, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most_bytes
        self._clock = clock
        self._size = 0
        self._entries: OrderedDict[str, tuple[float, Kept]] = OrderedDict()

    async def get(self, key: str) -> Kept | None:
        """See Shelf."""
        found = self._entries.get(key)
        if found is None:
            return None
        if found[0] <= self._clock():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return found[1]

    async def put(self, key: str, kept: Kept, ttl: timedelta) -> None:
        """See Shelf."""
        self._drop(key)
        if _size(kept) > self._most // _SHARE:
            return
        self._entries[key] = (self._clock() + ttl.total_seconds(), kept)
        self._size += _size(kept)
        while self._size > self._most:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: str) -> None:
        found = self._entries.pop(key, None)
        if found is not None:
            self._size -= _size(found[1])


class RedisShelf:
    """Keeps results in Redis, for all processes.

    Args:
        client: of Redis, with replies in bytes.
        most_bytes: of one result.
    """

    def __init__(
        self, client: redis.asyncio.Redis, most_bytes: int = _MOST_BYTES // _SHARE
    ) -> None:
        self._client = client
        self._most = most_bytes

    async def get(self, key: str) -> Kept | None:
        """See Shelf."""
        try:
            async with asyncio.timeout(_PATIENCE):
                found: Any = await self._client.get(_PREFIX + key)
        except _FAILED:
            log.warning("results cannot be read: redis is away", exc_info=True)
            return None
        if found is None:
            return None
        needs, _, result = found.partition(b"\n")
        return Kept(result=result, needs=frozenset(json.loads(needs)))

    async def put(self, key: str, kept: Kept, ttl: timedelta) -> None:
        """See Shelf."""
        if _size(kept) > self._most:
            return
        value = json.dumps(sorted(kept.needs)).encode() + b"\n" + kept.result
        milliseconds = max(1, int(ttl.total_seconds() * 1000))
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._client.set(_PREFIX + key, value, px=milliseconds)
        except _FAILED:
            log.warning("results cannot be kept: redis is away", exc_info=True)


def key_of(tool: Tool, request: Message, caller: Caller) -> str:
    """Names the results of equal uses of a tool."""
    assert tool.keeping is not None
    parts = (
        tool.name,
        request.DESCRIPTOR.full_name,
        tool.response.DESCRIPTOR.full_name,
        caller.share(tool.keeping.audience),
    )
    hashed = hashlib.sha256(json.dumps(parts).encode() + b"\n")
    hashed.update(request.SerializeToString(deterministic=True))
    return hashed.hexdigest()


def _size(kept: Kept) -> int:
    return len(kept.result) + sum(map(len, kept.needs)) + _OVERHEAD
