"""A primary: keeps a session to it up, whichever server it is at the time."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass

from weft.broker.redis import slots
from weft.broker.redis.connection import ASKING, Command, Pending, seen
from weft.broker.redis.durability import DURABLE, REPLICATED, Held
from weft.broker.redis.errors import ConnectionLost, NotSafe, is_other_server
from weft.broker.redis.session import Events, Session, Terms
from weft.broker.redis.topology import Finder

_LOG = logging.getLogger("weft.broker")
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 1.0
_INSPECTION = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Watchers:
    """Whom a node tells.

    Attributes:
        on_bell: channel and payload.
        on_reset: a session began or bells were added: things may have happened unheard.
        on_trouble: the server is lost, or some of its channels have moved.
        on_error: an error reply; True: it takes care of the command.
    """

    on_bell: Callable[[bytes, bytes], None]
    on_reset: Callable[[], None]
    on_trouble: Callable[[], None]
    on_error: Callable[[Node, Pending, Command, Exception], bool]


class Node:
    """A primary and our session to it, if there is one."""

    def __init__(self, name: str, find: Finder, terms: Terms, watchers: Watchers) -> None:
        self.name = name
        self.session: Session | None = None
        self.ready = asyncio.Event()
        self._find = find
        self._terms = terms
        self._watchers = watchers
        self._channels: frozenset[str] = frozenset()
        self._marks: tuple[str, ...] = ()
        self._wake = asyncio.Event()
        self._why: str = ""
        self._events = Events(
            on_error=self._on_error,
            on_bell=watchers.on_bell,
            on_moved=watchers.on_trouble,
            on_unsafe=self._wake.set,
        )

    # -- sending

    def put(self, pending: Pending, command: Command) -> None:
        """Queues a command; without a session it fails at once."""
        if self.session is None:
            pending.set_exception(self._loss())
        else:
            self.session.commands.put(pending, command)

    def put_durably(self, pending: Pending, command: Command, durability: int) -> None:
        """Queues a command whose reply comes when it is as safe as asked; 0: as safe as is the default."""
        session = self.session
        if session is None:
            pending.set_exception(self._loss())
            return
        if not durability:
            durability = self.default_durability
        if durability not in {DURABLE, REPLICATED} or (
            durability == DURABLE and session.facts.syncs_first
        ):
            session.commands.put(pending, command)
        elif (refusal := session.rounds.refusal(durability)) is not None:
            if isinstance(refusal, NotSafe):
                self._wake.set()
            pending.set_exception(refusal)
        else:
            session.rounds.add(Held(pending, command, durability))

    def _loss(self) -> ConnectionLost:
        return ConnectionLost(f"There is no connection to Redis; nothing was sent. {self._why}")

    @property
    def default_durability(self) -> int:
        """REPLICATED while a replica is connected, else DURABLE."""
        replicated = self.session is not None and self.session.facts.replicas
        return REPLICATED if replicated else DURABLE

    def put_again(self, pending: Pending, command: Command, *, asking: bool) -> None:
        """Queues what another node of a cluster sent here. `asking`: its slot is only on its way here."""
        if self.session is None:
            pending.set_exception(self._loss())
        elif isinstance(pending, Held):
            pending.asking = asking
            self.session.rounds.add(pending)
        else:
            if asking:
                self.session.commands.send(*ASKING).add_done_callback(seen)
            self.session.commands.put(pending, command)

    # -- shards

    def assign(self, shards: frozenset[int], *, listening: bool) -> None:
        """Has these shards from now on, and listens to their bells if asked."""
        self._marks = tuple(f"{slots.tag(shard)}:round" for shard in sorted(shards))
        if self.session is not None:
            self.session.rounds.marks = self._marks
        channels = frozenset(map(slots.bell, shards)) if listening else frozenset()
        if channels != self._channels:
            self._channels = channels
            self._wake.set()

    # -- keeping the session up

    async def attempt(self) -> None:
        """Tries to begin a session. Raises what came in the way."""
        address = await self._find()
        session = await Session.open(address, self._terms, self._events, self._marks)
        session.on_lost(self._wake.set)
        try:
            await session.bells.subscribe(self._channels, together=not self._terms.cluster)
        except BaseException:
            await session.close()
            raise
        self.session = session
        session.rounds.marks = self._marks
        self._why = ""
        self.ready.set()
        self._watchers.on_reset()

    async def keep(self) -> None:
        """Keeps a session up, for ever."""
        failures = 0
        while True:
            try:
                if self.session is None:
                    await self.attempt()
                    _LOG.info("Redis %s is available again", self.name)
                failures = 0
                await self._use(self.session)
            except Exception as error:  # noqa: BLE001 whatever it is, we try again
                failures += 1
                self._note(error, failures)
            await self._drop()
            self._watchers.on_trouble()
            longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(failures, 10))
            await asyncio.sleep(random.uniform(0, longest))  # noqa: S311 jitter

    async def _use(self, session: Session | None) -> None:
        """Returns when the session is lost; meanwhile subscribes and asks how the server is."""
        while session is not None and not session.lost:
            self._wake.clear()
            if await session.bells.subscribe(self._channels, together=not self._terms.cluster):
                self._watchers.on_reset()
            if not (await session.inspect()).primary:
                session.abort()
            try:
                async with asyncio.timeout(_INSPECTION):
                    await self._wake.wait()
            except TimeoutError:
                continue
            if (
                not session.lost
            ):  # who is woken by every refused message does not ask at once every time
                await asyncio.sleep(_FIRST_PAUSE)

    def _note(self, error: Exception, failures: int) -> None:
        self._why = str(error)
        if failures == 1:
            _LOG.warning("Redis %s is not available: %s", self.name, error)

    async def _drop(self) -> None:
        self.ready.clear()
        session, self.session = self.session, None
        if session is not None:
            session.abort()
            await session.close()

    async def close(self, drain: float) -> None:
        """Ends the session, after at most `drain` seconds for what is under way. `keep` has ended."""
        self.ready.clear()
        session, self.session = self.session, None
        if session is not None:
            await session.close(drain)

    # -- what the session tells

    def _on_error(self, pending: Pending, command: Command, error: Exception) -> bool:
        if is_other_server(error) and self.session is not None:
            self.session.abort()
        return self._watchers.on_error(self, pending, command, error)
