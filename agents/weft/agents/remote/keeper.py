"""Keeps a remote in the mesh: connects, registers what it offers, and does so again whenever either changes.

Each contract is served by a host of its own, on a port of its own. When the remote offers something else, the new host
is registered before the old one drains: callers see what they see when an agent is deployed anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from weft import rpc
from weft.agents.host import Host
from weft.agents.remote.contract import Made
from weft.agents.remote.line import Line
from weft.agents.remote.names import clean

log = logging.getLogger("weft.agents.remote")

_FIRST_PAUSE = 0.5  # seconds, doubled up to the last
_LAST_PAUSE = 15.0
_PROBING = 10.0  # seconds between looks whether the remote is there
_VERSION = "0.0.0"


class Session(Protocol):
    """A connection to a remote."""

    changed: asyncio.Event
    lost: asyncio.Event

    async def probe(self) -> None:
        """Returns when the remote answered; raises rpc.Error."""


SessionT = TypeVar("SessionT", bound=Session)


class Source(Protocol[SessionT]):
    """A remote."""

    @property
    def name(self) -> str:
        """Name of the agent that it becomes."""

    @property
    def place(self) -> str:
        """Where it is, for people."""

    def connected(self) -> contextlib.AbstractAsyncContextManager[SessionT]:
        """A connection; raises rpc.Error."""

    async def contract(self, session: SessionT, line: Line[SessionT]) -> Made:
        """What it offers now; raises rpc.Error."""


@dataclass(frozen=True, slots=True)
class _Serving:
    """What serves a contract. `waiting` is done when its registration has ended."""

    host: Host
    made: Made
    waiting: asyncio.Task[None]

    async def stop(self) -> None:
        await self.host.stop()
        self.waiting.cancel()
        await asyncio.gather(self.waiting, return_exceptions=True)


class Keeper(Generic[SessionT]):
    """Keeps one remote in the mesh.

    Args:
        source: the remote.
        hosts: makes a host that is not started.
        refresh: seconds between looks at what it offers.

    Attributes:
        registered: set when the agent is, for the first time.
        address: where it is served now; empty: not yet.
    """

    def __init__(
        self, source: Source[SessionT], hosts: Callable[[], Host], *, refresh: float = 60.0
    ) -> None:
        self._source = source
        self._hosts = hosts
        self._refresh = refresh
        self._line: Line[SessionT] = Line()
        self._serving: _Serving | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._is_away = False
        self.registered = asyncio.Event()

    @property
    def address(self) -> str:
        """Where the agent is served now; empty: not yet."""
        return self._serving.host.server.address if self._serving else ""

    async def run(self) -> None:
        """Keeps it until cancelled, then drains; for a task of its own.

        Raises:
            rpc.InvalidArgument: the registry does not take the agent.
        """
        pause = _FIRST_PAUSE
        try:
            while True:
                try:
                    async with self._source.connected() as session:
                        await self._arrive(session)
                        pause = _FIRST_PAUSE
                        await self._follow(session)
                except rpc.Error as failed:
                    self._away(failed)
                except Exception as failed:  # noqa: BLE001 nothing a remote does may end the process
                    self._away(_foreseen(failed))
                finally:
                    self._line.session = None
                await asyncio.sleep(pause * random.uniform(0.7, 1.3))  # noqa: S311 jitter
                pause = min(pause * 2, _LAST_PAUSE)
        finally:
            await self._stop()

    async def _arrive(self, session: SessionT) -> None:
        self._line.session = session
        self._line.trouble.clear()
        await self._look(session)
        self._say_health(serving=True)
        if self._is_away:
            log.info("the remote is back", extra=self._told())
        self._is_away = False

    async def _follow(self, session: SessionT) -> None:
        """Until the connection is good for nothing any more."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._refresh
        while not session.lost.is_set():
            await self._news(session, min(_PROBING, self._refresh, max(due - loop.time(), 0.0)))
            if session.changed.is_set() or loop.time() >= due:
                session.changed.clear()
                await self._look(session)
                due = loop.time() + self._refresh
            else:
                self._line.trouble.clear()
                await session.probe()
            self._check_host()
        log.info("the remote is to be connected to anew", extra=self._told())

    async def _news(self, session: SessionT, seconds: float) -> None:
        heard = [
            asyncio.create_task(event.wait())
            for event in (session.changed, session.lost, self._line.trouble)
        ]
        try:
            await asyncio.wait(heard, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in heard:
                each.cancel()
            await asyncio.gather(*heard, return_exceptions=True)

    async def _look(self, session: SessionT) -> None:
        """Sees what the remote offers, and serves that."""
        made = await self._source.contract(session, self._line)
        former = self._serving
        if former is not None and former.made.contract.digest == made.contract.digest:
            return
        host = self._hosts()
        try:
            labels = {"remote": clean(self._source.place, 100)}
            host.add(object(), version=_VERSION, labels=labels, contract=made.contract)
            await self._start(host)
        except rpc.InvalidArgument as refused:
            await host.stop()
            told = {**self._told(), "why": refused.message}
            log.error("the registry does not take what the remote offers", extra=told)  # noqa: TRY400 said by the registry
            return
        except BaseException:
            await host.stop()
            raise
        self._serving = _Serving(host, made, asyncio.create_task(host.wait()))
        skills = [method.name for method in made.contract.descriptor.methods]
        log.info("the remote is registered", extra={**self._told(), "skills": len(skills)})
        self.registered.set()
        if former is not None:
            self._leave(former)

    async def _start(self, host: Host) -> None:
        try:
            await host.start()
        except TimeoutError:
            # The host goes on trying, as every agent does.
            log.warning("the registry does not answer yet", extra=self._told())

    def _leave(self, serving: _Serving) -> None:
        leaving = asyncio.create_task(serving.stop())
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    def _check_host(self) -> None:
        """Forgets a host that is registered no more, so that there will be another."""
        if self._serving is not None and self._serving.waiting.done():
            log.error("the registration ended", extra=self._told())
            self._leave(self._serving)
            self._serving = None

    def _away(self, failed: rpc.Error) -> None:
        self._line.session = None
        self._say_health(serving=False)
        if not self._is_away:
            told = {**self._told(), "why": f"{failed.reason}: {failed.message}"}
            waits = "" if self._serving else "; its agent is registered as soon as it is there"
            log.warning("the remote is away%s", waits, extra=told)
        self._is_away = True

    def _say_health(self, *, serving: bool) -> None:
        if self._serving is not None:
            service = self._serving.made.contract.service
            self._serving.host.server.set_health(service, serving=serving)

    def _told(self) -> dict[str, str]:
        return {"agent": self._source.name, "remote": self._source.place}

    async def _stop(self) -> None:
        if self._serving is not None:
            self._leave(self._serving)
        if self._leaving:
            await asyncio.gather(*self._leaving, return_exceptions=True)


def _foreseen(failed: Exception) -> rpc.Error:
    """What a connection ended with, as an error of RPC."""
    found: BaseException = failed
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    if isinstance(found, rpc.Error):
        return found
    log.warning("the connection broke", exc_info=found)
    return rpc.Unavailable("The connection broke.", reason="REMOTE_CONNECTION_LOST")
