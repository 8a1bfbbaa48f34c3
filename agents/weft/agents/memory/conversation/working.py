"""Working memory: what an agent notes while it works on something. The only place that touches these keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from weft import rpc
from weft.agents.memory.conversation.conversation import translated

if TYPE_CHECKING:
    import redis.asyncio

_LONGEST_NAME = 200
# KEYS: values, order. ARGV: name, value, most, seconds. The place of a name is that of its last change.
_PUT = """
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')
redis.call('ZADD', KEYS[2], (tonumber(last[2]) or 0) + 1, ARGV[1])
while redis.call('HLEN', KEYS[1]) > tonumber(ARGV[3]) do
  redis.call('HDEL', KEYS[1], redis.call('ZPOPMIN', KEYS[2])[1])
end
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('EXPIRE', KEYS[2], ARGV[4])
return 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkingSettings:
    """How much is kept of a piece of work, and for how long."""

    most: int = 100
    """Names. What was not changed for longest goes first."""
    longest: int = 64 * 1024
    """Bytes of a value, as JSON."""
    life: timedelta = timedelta(hours=24)
    """How long it is kept after the last change."""


class WorkingMemory:
    """Notes of all tenants.

    Args:
        client: of Redis, with replies in bytes.
        settings: how much is kept.
    """

    def __init__(
        self, client: redis.asyncio.Redis, *, settings: WorkingSettings | None = None
    ) -> None:
        self._client = client
        self._settings = settings or WorkingSettings()

    def of(self, tenant: str, work: str) -> Notes:
        """The notes about a piece of work, such as a run or a conversation."""
        return Notes(self._client, tenant, work, self._settings)


class Notes:
    """Values of JSON by name. Made by `WorkingMemory.of`. Its methods raise MemoryUnavailable."""

    def __init__(
        self, client: redis.asyncio.Redis, tenant: str, work: str, settings: WorkingSettings
    ) -> None:
        self._client = client
        key = f"weft:memory:{{work:{quote(tenant, safe='')}:{quote(work, safe='')}}}"
        self._keys = [f"{key}:values", f"{key}:order"]
        self._settings = settings
        self._put = client.register_script(_PUT)

    async def put(self, name: str, value: Any) -> None:
        """Notes a value.

        Raises:
            InvalidArgument: it is no JSON or too long, or its name is.
        """
        if not 1 <= len(name) <= _LONGEST_NAME:
            raise rpc.InvalidArgument(f"must have 1 to {_LONGEST_NAME} characters", field="name")
        try:
            text = orjson.dumps(value)
        except TypeError:
            raise rpc.InvalidArgument("must be JSON", field="value") from None
        if len(text) > self._settings.longest:
            most = self._settings.longest
            raise rpc.InvalidArgument(f"must have at most {most:,} bytes as JSON", field="value")
        life = max(1, round(self._settings.life.total_seconds()))
        async with translated():
            await self._put(keys=self._keys, args=[name, text, self._settings.most, life])

    async def get(self, name: str, default: Any = None) -> Any:
        """A value, or `default`."""
        async with translated():
            kept = await self._client.hget(self._keys[0], name)
        return default if kept is None else orjson.loads(kept)

    async def all(self) -> Mapping[str, Any]:
        """Every value by its name."""
        async with translated():
            kept = await self._client.hgetall(self._keys[0])
        return {
            name.decode(): orjson.loads(value)
            for name, value in kept.items()
            if isinstance(name, bytes)
        }

    async def drop(self, name: str) -> None:
        """Deletes a value."""
        async with translated(), self._client.pipeline(transaction=True) as pipeline:
            pipeline.hdel(self._keys[0], name)
            pipeline.zrem(self._keys[1], name)
            await pipeline.execute()

    async def forget(self) -> None:
        """Deletes all of it."""
        async with translated():
            await self._client.delete(*self._keys)
