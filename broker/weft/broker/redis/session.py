"""All connections to one primary, which live and end together: for commands, for durable commands, for bells."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from weft.broker.redis import inspection, library
from weft.broker.redis.bells import BellConnection
from weft.broker.redis.connection import Command, Connection, Pending
from weft.broker.redis.durability import DISK_LIMIT, Rounds
from weft.broker.redis.opening import connect, introduce
from weft.broker.redis.url import Account, Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How we deal with every server.

    Attributes:
        account: who we are.
        database: its number; 0 in a cluster.
        library: source of the functions; empty: none.
        silence: seconds without an answer after which a server counts as hung.
        replica_limit: seconds after which a replica that has not answered has not got it.
        cluster: whether it is part of one.
        truthful: what was found out about the WAITAOF of a build.
    """

    account: Account
    database: int
    library: str
    silence: float
    replica_limit: float
    cluster: bool
    truthful: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """Whom a session tells.

    Attributes:
        on_error: an error reply; True: it takes care of the command.
        on_bell: channel and payload.
        on_moved: a bell is no longer here.
        on_unsafe: something is not known to be as safe as asked.
    """

    on_error: Callable[[Pending, Command, Exception], bool]
    on_bell: Callable[[bytes, bytes], None]
    on_moved: Callable[[], None]
    on_unsafe: Callable[[], None]


class Session:
    """The connections to one primary. Use `Session.open`."""

    def __init__(
        self,
        terms: Terms,
        commands: Connection,
        durable: Connection,
        bells: BellConnection,
        events: Events,
    ) -> None:
        self._terms = terms
        self._connections = (commands, durable, bells)
        self._durable = durable
        self.commands = commands
        self.bells = bells
        self.rounds = Rounds(durable, terms.replica_limit, events.on_unsafe)
        self.facts: inspection.Facts

    @classmethod
    async def open(
        cls, address: Address, terms: Terms, events: Events, marks: tuple[str, ...]
    ) -> Session:
        """Connects, checks the server and loads the library. `marks`: keys of this server that we may write to.

        Raises:
            ConnectionLost: nobody answers there, or no longer.
            StoreRefuses: it is not ready, or a replica.
            StoreUnfit: it cannot be used at all.
        """
        patience = terms.silence + DISK_LIMIT + terms.replica_limit
        opened: list[Connection] = []
        try:
            async with asyncio.timeout(patience):
                commands = await connect(
                    lambda: Connection(address, terms.silence, events.on_error), address
                )
                opened.append(commands)
                durable = await connect(
                    lambda: Connection(address, patience, events.on_error),
                    address,
                )
                opened.append(durable)
                bells = await connect(
                    lambda: BellConnection(address, terms.silence, events.on_bell, events.on_moved),
                    address,
                )
                opened.append(bells)
                session = cls(terms, commands, durable, bells, events)
                session.rounds.marks = marks
                await session._set_up()
        except BaseException:
            for connection in opened:
                await connection.close()
            raise
        return session

    async def _set_up(self) -> None:
        for connection in self._connections:
            await introduce(connection, self._terms.account)
            if self._terms.database:
                await connection.send("SELECT", self._terms.database)
        await self.bells.send("HELLO", 3)
        inspection.check(
            await self.inspect(), f"Redis at {self.commands.address}", cluster=self._terms.cluster
        )
        if self._terms.library:
            await library.load(self.commands, self._terms.library)

    async def inspect(self) -> inspection.Facts:
        """Asks again what the server is: its replicas and settings change while it runs."""
        facts = await inspection.inspect(self.commands)
        if facts.waits_for_disk and not facts.syncs_first:
            facts = replace(facts, waits_for_disk=await self._tells_truth(facts.build))
        self.facts = self.rounds.facts = facts
        return facts

    async def _tells_truth(self, build: str) -> bool:
        known = self._terms.truthful
        if build not in known:
            if not (marks := self.rounds.marks):
                return False
            known[build] = await inspection.tells_truth(self._durable, self.commands, marks[0])
        return known[build]

    @property
    def lost(self) -> bool:
        """Whether any of the connections is; the others are then of no use."""
        return any(connection.lost.done() for connection in self._connections)

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Calls back when a connection is lost."""
        for connection in self._connections:
            connection.lost.add_done_callback(lambda _: callback())

    def abort(self) -> None:
        """Drops all; what is unanswered fails."""
        for connection in self._connections:
            connection.abort()

    async def close(self, drain: float = 0.0) -> None:
        """Closes all, after at most `drain` seconds for what is under way."""
        for connection in self._connections:
            await connection.close(drain)
