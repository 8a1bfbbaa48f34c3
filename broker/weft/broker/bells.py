"""Who hears of what happens in Redis: rings of other brokers, and those of this one without the way through Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

CONFIG_CHANNEL = "{weft}:bell"
_CONFIG_SHARD = -1


class Publishes(Protocol):
    """What is used of weft.broker.redis.Redis."""

    async def run(self, shard: int, *command: bytes | str | float) -> object:
        """Sends a command that may be sent twice."""


class Bells:
    """Rings and listeners.

    A ring may be lost with a connection: whoever listens also hears `on_reset`, and looks for itself then.

    Args:
        redis: carries rings to the other brokers.
        instance: id of this broker; its own rings that come back are ignored.
    """

    def __init__(self, redis: Publishes, instance: str) -> None:
        self._redis = redis
        self._instance = instance.encode()
        self._ready: list[Callable[[str, int], None]] = []
        self._due: list[Callable[[int, int], None]] = []
        self._reply: list[Callable[[bytes, bytes | None], None]] = []
        self._change: list[Callable[[bytes], None]] = []
        self._reset: list[Callable[[], None]] = []

    def on_ready(self, listener: Callable[[str, int], None]) -> None:
        """`listener(queue, bits)`: the queue has messages of the priorities of `bits` (1 << priority)."""
        self._ready.append(listener)

    def on_due(self, listener: Callable[[int, int], None]) -> None:
        """`listener(shard, due)`: a message of the shard is due at `due`, in ms."""
        self._due.append(listener)

    def on_reply(self, listener: Callable[[bytes, bytes | None], None]) -> None:
        """`listener(identity, reply)`: there is a reply to this message; None: look which."""
        self._reply.append(listener)

    def on_change(self, listener: Callable[[bytes], None]) -> None:
        """`listener(what)`: the configuration named changed."""
        self._change.append(listener)

    def on_reset(self, listener: Callable[[], None]) -> None:
        """`listener()`: rings may have been missed."""
        self._reset.append(listener)

    def ready(self, queue: str, bits: int) -> None:
        """Tells this broker of new messages in a queue."""
        if bits:
            for listener in self._ready:
                listener(queue, bits)

    def due(self, shard: int, due: int) -> None:
        """Tells this broker of a delayed message."""
        if due:
            for listener in self._due:
                listener(shard, due)

    def reply(self, identity: bytes, reply: bytes | None) -> None:
        """Tells this broker of a reply, the first to its message; None: there is one."""
        for listener in self._reply:
            listener(identity, reply)

    async def announce(self, what: bytes) -> None:
        """Tells all other brokers of a change of the configuration."""
        payload = b"%s|c|%s" % (self._instance, what)
        await self._redis.run(_CONFIG_SHARD, "SPUBLISH", CONFIG_CHANNEL, payload)

    def heard(self, channel: bytes, payload: bytes) -> None:
        """Takes a ring that came through Redis."""
        instance, kind, rest = payload.split(b"|", 2)
        if instance == self._instance:
            return
        if kind == b"q":
            queue, _, bits = rest.rpartition(b"|")
            self.ready(queue.decode(), int(bits))
        elif kind == b"z":
            self.due(int(channel[2 : channel.index(b"}")]), int(rest))
        elif kind == b"r":
            self.reply(rest, None)
        elif kind == b"c":
            for listener in self._change:
                listener(rest)

    def reset(self) -> None:
        """Says that rings may have been missed."""
        for listener in self._reset:
            listener()
