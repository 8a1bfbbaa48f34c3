"""Durable commands: answered when they are as safe as asked, with one barrier for all that were written together.

WAIT and WAITAOF hold for what the same connection wrote before (redis.io/commands/wait), and block it; so durable
commands have a connection of their own. While a barrier is outstanding, further commands gather for the next round.

A command that wrote nothing, such as a publish that was a duplicate, moves no barrier: what it found may be
another connection's write that no replica has yet. So each round ends with a small write of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from weft.broker.redis.connection import ASKING, Command, Connection, Pending, seen
from weft.broker.redis.errors import NotSafe, StoreUnfit
from weft.broker.redis.inspection import Facts
from weft.v1 import message_pb2

DURABLE = message_pb2.DURABILITY_DURABLE
REPLICATED = message_pb2.DURABILITY_REPLICATED

# Seconds. With `everysec` the disk has it within a second or two, if the server tells the truth.
DISK_LIMIT = 5.0
_WAITAOF: Command = (b"WAITAOF", 1, 0, int(DISK_LIMIT * 1000))
_MARK_SECONDS = 1_000_000_000
_NO_DISK = "It is not known to be on disk; publish it again with the same id."
_NO_REPLICA = "No replica has said that it has it; publish it again with the same id."


class Held:
    """A durable command: keeps the reply until the barrier is passed.

    Attributes:
        durability: DURABLE or REPLICATED.
        tries: how often a cluster sent it elsewhere.
        asking: it goes to a node that its slot is only on its way to.
    """

    __slots__ = ("answered", "asking", "command", "durability", "pending", "reply", "tries")

    def __init__(self, pending: Pending, command: Command, durability: int) -> None:
        self.pending = pending
        self.command = command
        self.durability = durability
        self.tries = 0
        self.asking = False
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
    """Takes the replies of what ends a round; it is passed if the last of them says so, and no error came."""

    def __init__(self, members: list[Held], why: str, then: Callable[[bool], None]) -> None:
        self._members = members
        self._why = why
        self._then = then
        self.broken = False

    def done(self) -> bool:
        """Never: it is the round that waits."""
        return False

    def set_result(self, result: Any, /) -> None:
        """WAIT says how many replicas have it; WAITAOF how many disks, our own first."""
        enough = result[0] if isinstance(result, list) else result
        safe = bool(enough) and not self.broken
        for held in self._members:
            if safe:
                held.release()
            elif held.answered:
                held.set_exception(NotSafe(self._why))
        self._then(safe)

    def set_exception(self, exception: Exception, /) -> None:  # noqa: ARG002 the barrier is not passed, whatever it is
        """Nothing is known."""
        self.set_result(0)


class _Mark:
    """Takes the reply to the round's own write, without which its barriers mean nothing."""

    def __init__(self, barriers: list[_Barrier], failed: Callable[[], None]) -> None:
        self._barriers = barriers
        self._failed = failed

    def done(self) -> bool:
        """It counts, whoever waits."""
        return False

    def set_result(self, result: Any, /) -> None:
        """1: it is written."""
        if not result:
            self._fail()

    def set_exception(self, exception: Exception, /) -> None:  # noqa: ARG002 whatever it is
        """It is not."""
        self._fail()

    def _fail(self) -> None:
        for barrier in self._barriers:
            barrier.broken = True
        self._failed()


class Rounds:
    """Sends durable commands in rounds over a connection of their own.

    Args:
        connection: used for nothing else.
        replica_limit: seconds after which a replica that has not answered has not got it.
        on_unsafe: called when a barrier was not passed.

    Attributes:
        facts: of the server; its owner keeps them.
        marks: keys of this server for the rounds' own writes.
    """

    facts: Facts
    marks: tuple[str, ...] = ()

    def __init__(
        self,
        connection: Connection,
        replica_limit: float,
        on_unsafe: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._wait: Command = (b"WAIT", 1, max(1, int(replica_limit * 1000)))
        self._on_unsafe = on_unsafe
        self._loop = asyncio.get_running_loop()
        self._next: list[Held] = []
        self._outstanding = 0
        self._scheduled = False
        self._marked = ""

    def refusal(self, durability: int) -> Exception | None:
        """Why the server cannot promise this now; None: it can."""
        if durability == DURABLE and not self.facts.durable:
            return StoreUnfit(
                f"{self.facts.build} cannot tell when something is on disk: "
                "set `appendonly yes` and `appendfsync always`."
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
        for held in members:
            if held.asking:
                self._connection.send(*ASKING).add_done_callback(seen)
            try:
                self._connection.put(held, held.command)
            except (TypeError, ValueError) as error:  # it is nothing that Redis can be sent
                held.set_exception(error)
        disk = [held for held in members if held.durability == DURABLE]
        replica = [held for held in members if held.durability == REPLICATED]
        barriers: list[tuple[_Barrier, Command]] = []
        if disk:
            barriers.append((_Barrier(disk, _NO_DISK, self._ended), _WAITAOF))
        if replica:
            barriers.append((_Barrier(replica, _NO_REPLICA, self._ended), self._wait))
        self._outstanding = len(barriers)
        if self.marks:
            self._mark([barrier for barrier, _ in barriers], self.marks[0])
        for barrier, command in barriers:
            self._connection.put(barrier, command)

    def _mark(self, barriers: list[_Barrier], key: str) -> None:
        """Writes, by a command that a server with full memory takes as well; it needs a key that is there."""
        if self._marked != key:
            self._connection.send(b"SET", key, 1).add_done_callback(seen)
            self._marked = key
        self._connection.put(_Mark(barriers, self._next_mark), (b"EXPIRE", key, _MARK_SECONDS))

    def _next_mark(self) -> None:
        """This key is gone, or on its way to another node; there are more."""
        self._marked = ""
        self.marks = self.marks[1:] + self.marks[:1]

    def _ended(self, safe: bool) -> None:  # noqa: FBT001 a callback's one value
        if not safe:
            self._on_unsafe()
        self._outstanding -= 1
        if not self._outstanding and self._next:
            self._begin()
