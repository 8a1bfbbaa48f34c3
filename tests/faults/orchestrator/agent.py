"""The agent `echo` as a process whose effects outlive it, in Redis: `ROLE REGISTRY REDIS_URL`.

An effect is what it does once for each idempotency key: it remembers the key under the text of the call.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError
from tests.faults.orchestrator.graph import answer

from weft import embedded, rpc
from weft.agents import Host
from weft.echo.v1 import echo_pb2, echo_pb2_grpc

_KEY = "idempotency-key"
_CALLS, _EFFECTS = "calls", "effects"


class Effects(echo_pb2_grpc.EchoServiceServicer):
    """Answers, and keeps what it did."""

    def __init__(self, memory: redis.asyncio.Redis) -> None:
        self._memory = memory

    async def Say(self, request: Any, context: Any) -> Any:
        del context
        call = rpc.current_call()
        assert call is not None
        key = str(call.first(_KEY))
        try:
            await self._memory.rpush(_CALLS, f"{time.time():.6f} {key}")
            # Half of it before, half of it behind: it is killed at either.
            await asyncio.sleep(request.delay.ToTimedelta().total_seconds() / 2)
            await self._memory.hsetnx(_EFFECTS, key, request.text)
            await asyncio.sleep(request.delay.ToTimedelta().total_seconds() / 2)
        except (RedisError, OSError):
            raise rpc.Unavailable("The memory of this agent is away.") from None
        return echo_pb2.SayResponse(text=answer(request.text))

    async def SayOnce(self, request: Any, context: Any) -> Any:
        return echo_pb2.SayOnceResponse(said=await self.Say(request.say, context))


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What agents did."""

    effects: Mapping[str, str]
    """Texts by idempotency key."""
    calls: Mapping[str, list[float]] = field(default_factory=dict)
    """When a key was called."""


async def remembered(memory: redis.asyncio.Redis) -> Remembered:
    """All that agents did."""
    calls: dict[str, list[float]] = {}
    raw: Any = memory  # it decodes nothing
    for line in await raw.lrange(_CALLS, 0, -1):
        at, _, key = line.decode().partition(" ")
        calls.setdefault(key, []).append(float(at))
    effects = await raw.hgetall(_EFFECTS)
    return Remembered(
        effects={key.decode(): text.decode() for key, text in effects.items()}, calls=calls
    )


def memory_at(url: str) -> redis.asyncio.Redis:
    """The agents' memory."""
    return embedded.redis_client(url, timeout=timedelta(seconds=2))


async def _serve(registry: str, redis_url: str) -> None:
    host = Host(registry=registry)
    servicer: Any = Effects  # what it does not serve is UNIMPLEMENTED
    host.add(servicer(memory_at(redis_url)))
    async with host:
        with contextlib.suppress(TimeoutError):  # it goes on trying
            await host.start()
        print("ready", flush=True)  # noqa: T201 for whoever started it
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2]))
