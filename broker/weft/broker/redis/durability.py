"""Durable commands: answered when they are as safe as asked, with one barrier for all that were written together.

WAIT and WAITAOF hold for what the same connection wrote before (redis.io/commands/wait), and block it; so durable
commands have a connection of their own. While a barrier is outstanding, further commands gather for the next round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from weft.broker.redis.connection import Argument, Command, Connection, Pending
from weft.broker.redis.errors import NotSafe, StoreUnfit
from weft.broker.redis.inspection import Facts
from weft.v1 import message_pb2

DURABLE = message_pb2.DURABILITY_DURABLE
REPLICATED = message_pb2.DURABILITY_REPLICATED

# Seconds. With `everysec` the disk has it within a second or two; a replica that takes so long is stuck.
_DISK_LIMIT = 5.0
_REPLICA_LIMIT = 2.0
LONGEST_BARRIER = _DISK_LIMIT + _REPLICA_LIMIT


class Held:
    """A durable command: keeps the reply until the barrier is passed. `durability`: DURABLE or REPLICATED."""

    __slots__ = ("answered", "command", "durability", "pending", "reply", "tries")

    def __init__(self, pending: Pending, command: Command, durability: int, tries: int = 0) -> None:
        self.pending = pending
        self.command = command
        self.durability = durability
        self.tries = tries
        self.answered = False
        self.reply: Any = None

    def done(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.pending.done()

    def set_result(self, result: Any, /) -> None:
        """Keeps the reply."""
        self.reply = result
        self.answered = True

    def set_exception(self, exception: Exception, /) -> None:
        """An error needs no barrier."""
        if not self.pending.done():
            self.pending.set_exception(exception)

    def release(self) -> None:
        """The barrier is passed."""
        if self.answered and not self.pending.done():
            self.pending.set_result(self.reply)


class _Barrier:
    """Takes the reply to WAIT or WAITAOF."""

    def __init__(self, passed: Callable[[Any], bool], then: Callable[[bool], None]) -> None:
        self._passed = passed
        self._then = then

    def done(self) -> bool:
        return False

    def set_result(self, result: Any, /) -> None:
        self._then(self._passed(result))

    def set_exception(self, exception: Exception, /) -> None:  # noqa: ARG002 a broken barrier is not passed
        self._then(False)


class Rounds:
    """Sends durable commands in rounds over a connection of their own. `facts` are kept by its owner."""

    facts: Facts

    def __init__(
        self,
        connection: Connection,
    ) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._next: list[Held] = []
        self._outstanding = 0
        self._scheduled = False

    def refusal(self, durability: int) -> Exception | None:
        """Why the server cannot promise this now; None: it can."""
        if durability == DURABLE and not self.facts.durable:
            return StoreUnfit(
                "Redis cannot tell when something is on disk: set `appendonly yes`, and either "
                "`appendfsync always` or use Redis 7.2 or newer, or Valkey."
            )
        if durability == REPLICATED and not self.facts.replicas:
            return NotSafe("No replica of Redis is connected; nothing was stored.")
        return None

    def add(self, held: Held) -> None:
        """Queues a command for the next round."""
        self._next.append(held)
        if not self._outstanding and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._scheduled = False
        members, self._next = self._next, []
        if not members:
            return
        disk = [held for held in members if held.durability == DURABLE]
        replica = [held for held in members if held.durability == REPLICATED]
        for held in members:
            self._connection.put(held, held.command)
        if disk:
            self._barrier(
                ("WAITAOF", 1, 0, int(_DISK_LIMIT * 1000)),
                lambda reply: reply[0] >= 1,
                disk,
                "It is not known to be on disk.",
            )
        if replica:
            self._barrier(
                ("WAIT", 1, int(_REPLICA_LIMIT * 1000)),
                lambda reply: reply >= 1,
                replica,
                "No replica of Redis has said that it has it.",
            )

    def _barrier(
        self,
        command: tuple[Argument, ...],
        passed: Callable[[Any], bool],
        members: list[Held],
        why: str,
    ) -> None:
        def then(safe: bool) -> None:  # noqa: FBT001 a callback's one value
            for held in members:
                if safe:
                    held.release()
                elif held.answered:
                    held.set_exception(NotSafe(why))
            self._outstanding -= 1
            if not self._outstanding and self._next:
                self._begin()

        self._outstanding += 1
        self._connection.put(_Barrier(passed, then), command)
