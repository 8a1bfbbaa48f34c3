"""Redis as the broker sees it: 256 shards and a config shard, wherever they are."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from weft import rpc
from weft.broker.errors import StoreUnavailable
from weft.broker.redis.cluster import Cluster
from weft.broker.redis.connection import Argument
from weft.broker.redis.errors import ConnectionLost
from weft.broker.redis.placement import Lone, Placement
from weft.broker.redis.session import Terms
from weft.broker.redis.url import Kind, parse

_LOG = logging.getLogger("weft.broker")
_SILENCE = timedelta(seconds=5)
_REPLICA_LIMIT = timedelta(seconds=2)
_PATIENCE = timedelta(seconds=10)
_DRAIN = 2.0
_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.5


class Redis:
    """All of Redis. Use `Redis.connect`, and `close` in the end."""

    def __init__(self, placement: Placement, listeners: _Listeners) -> None:
        self._placement = placement
        self._listeners = listeners
        self._table = placement.table
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        library: str = "",
        silence: timedelta = _SILENCE,
        replica_limit: timedelta = _REPLICA_LIMIT,
    ) -> Redis:
        """Connects to every primary and loads the function library into it.

        Args:
            url: see weft.broker.redis.url.
            library: source of a function library.
            silence: a server that has not answered for so long counts as hung.
            replica_limit: a replica that has not answered for so long has not got what was sent.

        Raises:
            StoreUnfit: the URL, the server or our account cannot be used.
            StoreUnavailable: it was not there within the current deadline, or ten seconds.
        """
        parsed = parse(url)
        terms = Terms(
            account=parsed.account,
            database=parsed.database,
            library=library,
            silence=silence.total_seconds(),
            replica_limit=replica_limit.total_seconds(),
            cluster=parsed.kind is Kind.CLUSTER,
        )
        listeners = _Listeners()
        placement: Placement
        if terms.cluster:
            placement = Cluster(parsed, terms, listeners.bell, listeners.reset)
        else:
            placement = Lone(parsed, terms, listeners.bell, listeners.reset)
        try:
            await placement.start(_deadline())
        except BaseException:
            await placement.close(0.0)
            raise
        return cls(placement, listeners)

    async def close(self) -> None:
        """Waits a moment for what is under way, then ends every connection."""
        self._listeners.mute()
        await self._placement.close(_DRAIN)

    # -- commands

    def send(self, shard: int, *command: Argument) -> asyncio.Future[Any]:
        """Queues a command for the node of a shard; -1 is the config shard. Sent once, in order, RESP2 replies.

        The future raises ConnectionLost (it was not sent, or nobody knows what became of it), StoreRefuses, or
        ReplyError.
        """
        future = self._loop.create_future()
        self._table[shard].put(future, command)
        return future

    def send_durably(
        self, shard: int, *command: Argument, durability: int = 0
    ) -> asyncio.Future[Any]:
        """The same, but the reply comes when it is as safe as `weft.v1.Durability` says; 0: the default of its node.

        The future also raises NotSafe (it may have been done) or, for what the server can never do, StoreUnfit.
        """
        future = self._loop.create_future()
        self._table[shard].put_durably(future, command, durability)
        return future

    async def run(self, shard: int, *command: Argument) -> Any:
        """Does what may be done twice: repeats it over lost connections and refusals until the current deadline.

        Raises:
            StoreUnavailable: the deadline, or ten seconds, passed; the last error.
            ReplyError: Redis says that the command is wrong.
        """
        deadline = _deadline()
        pause = _FIRST_PAUSE
        while True:
            future = self.send(shard, *command)
            try:
                async with asyncio.timeout(_seconds(deadline)):
                    return await future
            except TimeoutError:
                raise ConnectionLost("Redis did not answer in time.") from None
            except StoreUnavailable:
                if deadline.seconds() <= pause:
                    raise
            await self._ready(shard, min(deadline.seconds(), pause))
            pause = min(_LONGEST_PAUSE, pause * 2)

    async def _ready(self, shard: int, longest: float) -> None:
        """Waits a little, and on until the node is connected if it is not."""
        await asyncio.sleep(random.uniform(0, longest))  # noqa: S311 jitter
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest):
                await self._table[shard].ready.wait()

    # -- what is known of the servers

    @property
    def default_durability(self) -> int:
        """REPLICATED where every primary has a replica, else DURABLE."""
        return min(node.default_durability for node in set(self._table))

    def shards_by_node(self) -> dict[str, list[int]]:
        """The shards, without the config shard, by the name of their node."""
        found: dict[str, list[int]] = {}
        for shard, node in enumerate(self._table[:-1]):
            found.setdefault(node.name, []).append(shard)
        return found

    # -- bells

    def listen(self, on_bell: Callable[[bytes, bytes], None], on_reset: Callable[[], None]) -> None:
        """Listens to the bells of all shards.

        Args:
            on_bell: called with channel and payload.
            on_reset: called when a connection began anew, this one included: things may have happened unheard.
        """
        self._listeners.on_bell, self._listeners.on_reset = on_bell, on_reset
        self._placement.listen()


class _Listeners:
    """Whom the bells ring for; nobody at first."""

    def __init__(self) -> None:
        self.mute()

    def mute(self) -> None:
        self.on_bell: Callable[[bytes, bytes], None] = lambda _channel, _payload: None
        self.on_reset: Callable[[], None] = lambda: None

    def bell(self, channel: bytes, payload: bytes) -> None:
        self.on_bell(channel, payload)

    def reset(self) -> None:
        try:
            self.on_reset()
        except Exception:  # noqa: BLE001 it is logged, and no fault of the connection
            _LOG.exception("A listener to resets failed")


def _deadline() -> rpc.Deadline:
    return rpc.Deadline.after(_PATIENCE) if (it := rpc.Deadline.current()) is None else it


def _seconds(deadline: rpc.Deadline) -> float | None:
    seconds = deadline.seconds()
    return None if math.isinf(seconds) else seconds
