"""The processes of a round: PostgreSQL, Redis, a registry, orchestrators, agents."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import asyncpg
from tests.broker.servers import Server, find_program
from tests.faults.processes import Child, python
from tests.ports import free_port

from weft.embedded._child import Child as Guarded
from weft.embedded._folders import Folders
from weft.embedded._postgres import Postgres
from weft.postgres import DRIVER_ERRORS
from weft.rpc.testing import wait_until

_STARTING = timedelta(seconds=120)
_LOOKING = 0.1  # seconds
_AUDIT = Path(__file__).with_name("audit.sql")


@dataclass(slots=True, kw_only=True)
class Away:
    """When something could not serve, on the clock of the machine. `end` None: it still cannot."""

    name: str
    begin: float
    end: float | None = None


class Database:
    """A PostgreSQL that is killed, and started again on the folder it has."""

    name = "postgresql"

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self._child: Guarded | None = None
        self.url = server.url

    @classmethod
    async def prepare(cls, folder: Path) -> Database:
        """Makes its folder."""
        folders = Folders.of(folder)
        folders.create()
        return cls(await Postgres.prepare(folders, folders.sockets(), None, None))

    async def start(self) -> None:
        """Returns when it takes connections."""
        if self._child is not None:
            await self._child.dispose()
        self._child = await self._server.start()

    def alive(self) -> bool:
        """Whether it runs."""
        return self._child is not None and not self._child.ended

    def kill(self, chance: random.Random) -> None:
        """Kills it, or one of its processes, after which it ends all others and begins anew."""
        assert self._child is not None
        main = self._child.pid
        children = Path(f"/proc/{main}/task/{main}/children")
        parts = children.read_text().split() if children.exists() else []
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(chance.choice(parts)) if parts and chance.random() < 0.4 else main, 9)

    async def stop(self) -> None:
        """Ends it."""
        if self._child is not None:
            await self._server.stop(self._child)

    async def serves(self) -> bool:
        """Whether it answers."""
        with contextlib.suppress(*DRIVER_ERRORS):
            connection = await asyncpg.connect(self.url, timeout=2)
            try:
                return bool(await connection.fetchval("select true"))
            finally:
                connection.terminate()
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    """Something to kill with -9."""

    name: str
    kill: Callable[[], object]
    alive: Callable[[], bool]
    ready: Callable[[], Awaitable[bool]]
    start: Callable[[], Awaitable[None]]
    worker: Child | None = None
    """It is an orchestrator."""


@dataclass(slots=True, kw_only=True)
class World:
    """What runs."""

    database: Database
    redis: Server
    orchestrators: list[str] = field(default_factory=list)
    """Their addresses."""
    victims: list[Victim] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    """Those that are not to be started again yet, by name."""
    away: list[Away] = field(default_factory=list)

    def gone(self, name: str) -> None:
        """Says that something cannot serve from now on."""
        self.away.append(Away(name=name, begin=time.time()))

    def gone_now(self) -> set[str]:
        """Who cannot serve."""
        return {each.name for each in self.away if each.end is None}

    def back(self, name: str) -> None:
        """Says that it can again."""
        for each in self.away:
            if each.name == name and each.end is None:
                each.end = time.time()


@contextlib.asynccontextmanager
async def running(
    folder: Path, *, seed: int, lease: float, workers: int = 3
) -> AsyncIterator[World]:
    """Starts all of it."""
    chance = random.Random(seed + 2)
    async with contextlib.AsyncExitStack() as stack:
        redis = Server(await find_program(), folder / "redis")
        stack.callback(redis.kill)
        database = await Database.prepare(folder / "data")
        await asyncio.gather(redis.start(), database.start())
        stack.push_async_callback(database.stop)
        world = World(database=database, redis=redis)
        registry = f"127.0.0.1:{free_port()}"
        settings = {
            "GRPC_VERBOSITY": "ERROR",
            "WEFT_DATABASE_URL": database.url,
            "WEFT_REDIS_URL": redis.url,
            "WEFT_REGISTRY": registry,
            "WEFT_REGISTRY_LISTEN": registry,
            "WEFT_REGISTRY_METRICS": "127.0.0.1:0",
            "WEFT_REGISTRY_COLD_START": "0s",
            "WEFT_TRACE_SAMPLE": "0",
        }

        def child(name: str, *command: str) -> Child:
            made = Child(python(*command), folder / f"{name}.log", settings)
            stack.callback(made.kill)
            made.start()
            return made

        child("registry", "weft.cli", "registry")
        world.victims += [
            Victim(
                name="redis",
                kill=redis.kill,
                alive=lambda: not redis.ended(),
                ready=redis.answers,
                start=_at_once(redis.begin),
            ),
            Victim(
                name=database.name,
                kill=lambda: database.kill(chance),
                alive=database.alive,
                ready=database.serves,
                start=database.start,
            ),
        ]
        for number in (1, 2):
            called = ("tests.faults.orchestrator.agent", registry, redis.url)
            world.victims.append(_victim(child(f"agent-{number}", *called)))
        for number in range(1, workers + 1):
            listen, name = f"127.0.0.1:{free_port()}", f"orchestrator-{number}"
            world.orchestrators.append(listen)
            command = ("tests.faults.orchestrator.worker", listen, registry, database.url)
            process = child(name, *command, name, str(lease))
            if number == 1:  # it makes the schema
                await wait_until(process.ready, _STARTING)
                await _audited(database.url)
            world.victims.append(_victim(process, worker=True))
        async with (
            asyncio.TaskGroup() as group
        ):  # where nobody starts anything again the round has failed
            supervising = group.create_task(_supervise(world))
            await serving(world)
            yield world
            supervising.cancel()


async def serving(world: World) -> None:
    """Returns when all runs."""
    for victim in world.victims:
        await wait_until(victim.ready, _STARTING)


async def _audited(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(_AUDIT.read_text())
    await connection.close()


async def _supervise(world: World) -> None:
    """Starts again what has died, and notes when it serves again."""
    async with asyncio.TaskGroup() as group:
        for victim in world.victims:
            group.create_task(_keep(world, victim))


async def _keep(world: World, victim: Victim) -> None:
    while True:
        if await victim.ready():
            world.back(victim.name)
        elif victim.name not in world.down and not victim.alive():
            await victim.start()
        await asyncio.sleep(_LOOKING)


def _victim(child: Child, *, worker: bool = False) -> Victim:
    async def ready() -> bool:
        return child.alive and not child.stopped and child.ready()

    return Victim(
        name=child.name,
        kill=child.kill,
        alive=lambda: child.alive,
        ready=ready,
        start=_at_once(child.start),
        worker=child if worker else None,
    )


def _at_once(start: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def begin() -> None:
        start()

    return begin


__all__ = ["Away", "Database", "Victim", "World", "running", "serving"]
