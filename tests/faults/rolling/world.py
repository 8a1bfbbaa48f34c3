"""All that runs in the drill, each a process: PostgreSQL, Redis, registries, brokers, gateways, agents."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from tests.broker.servers import Server, find_program
from tests.faults.processes import Child, python
from tests.ports import free_port

from weft import embedded
from weft.rpc.testing import wait_until

STARTING = timedelta(seconds=60)
_ENDING = 30.0  # seconds a part has to finish what it has


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Something that is restarted. `restart` returns when it is up again."""

    name: str
    restart: Callable[[], Awaitable[None]]


@dataclass(slots=True, kw_only=True)
class World:
    """What runs.

    Attributes:
        calls: file in which agents write down each call.
        registries: addresses, joined by commas.
        brokers: same.
        gateways: their URLs.
        parts: in the order in which they are restarted.
    """

    calls: Path
    registries: str = ""
    brokers: str = ""
    gateways: list[str] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)


@contextlib.asynccontextmanager
async def running(
    folder: Path, *, database_url: str = "", replicas: int = 2
) -> AsyncIterator[World]:
    """Starts all of it. With a `database_url` its PostgreSQL is used, and not restarted."""
    world = World(calls=folder / "calls")
    async with contextlib.AsyncExitStack() as stack:
        redis = Server(await find_program(), folder / "redis")
        stack.callback(redis.kill)
        await redis.start()
        own = not database_url
        data = folder / "data"
        if own:
            found = await stack.enter_async_context(embedded.launch(data, redis_url=redis.url))
            database_url = found.database_url
        places = {
            part: [f"127.0.0.1:{free_port()}" for _ in range(number)]
            for part, number in (("registry", 3), ("broker", replicas), ("gateway", replicas))
        }
        world.registries, world.brokers = ",".join(places["registry"]), ",".join(places["broker"])
        world.gateways = [f"http://{place}" for place in places["gateway"]]
        settings = {
            "GRPC_VERBOSITY": "ERROR",
            "TMPDIR": str(folder),
            "WEFT_DATABASE_URL": database_url,
            "WEFT_REDIS_URL": redis.url,
            "WEFT_REGISTRY": world.registries,
            "WEFT_BROKER": world.brokers,
            "WEFT_REGISTRY_METRICS": "127.0.0.1:0",
            "WEFT_BROKER_METRICS": "127.0.0.1:0",
            "WEFT_GATEWAY_METRICS": "127.0.0.1:0",
            "WEFT_GATEWAY_GRPC_LISTEN": "127.0.0.1:0",
            "WEFT_TRACE_SAMPLE": "0",
        }

        def child(name: str, *command: str, **further: str) -> Child:
            made = Child(python(*command), folder / f"{name}.log", settings | further)
            stack.callback(made.kill)
            made.start()
            world.parts.append(Part(name=name, restart=lambda: _again(made)))
            return made

        children = [
            child(
                f"{part}-{number}",
                "weft.cli",
                part,
                **{f"WEFT_{part.upper()}_LISTEN": place},
            )
            for part, there in places.items()
            for number, place in enumerate(there, 1)
        ]
        children += [
            child(
                f"agent-{number}",
                "tests.faults.rolling.agent",
                world.registries,
                world.brokers,
                str(world.calls),
            )
            for number in range(1, replicas + 1)
        ]
        for each in children:
            await wait_until(lambda each=each: each.told(b"ready"), STARTING)
        world.parts.append(Part(name="redis", restart=lambda: _again_redis(redis)))
        if own:
            world.parts.append(
                Part(name="postgresql", restart=lambda: _again_postgres(data, database_url))
            )
        yield world


async def _again(child: Child) -> None:
    """Restarts a part as an orchestrator does: SIGTERM, its own time to finish, a new process."""
    child.ask_to_end()
    if not await child.ended(_ENDING):
        raise RuntimeError(f"{child.name} did not end within {_ENDING:.0f} s: {child.said()}")
    child.start()
    await wait_until(lambda: child.told(b"ready") or not child.alive, STARTING)
    if not child.alive:
        raise RuntimeError(f"{child.name} does not start: {child.said()}")


async def _again_redis(redis: Server) -> None:
    os.kill(redis.pid, signal.SIGTERM)
    await wait_until(redis.ended, STARTING)
    await redis.start()


async def _again_postgres(data: Path, url: str) -> None:
    """Ends the postmaster as its service manager does; its supervisor starts it again."""
    file = _pid_file(data)
    former = int(file.read_text().split()[0])
    os.kill(former, signal.SIGINT)  # "fast": connections are cut, what is committed is kept

    async def answers() -> bool:
        import asyncpg

        with contextlib.suppress(OSError, asyncpg.PostgresError, IndexError, ValueError):
            if int(file.read_text().split()[0]) == former:
                return False
            connection = await asyncpg.connect(url)
            await connection.close()
            return True
        return False

    await wait_until(answers, STARTING)


def _pid_file(data: Path) -> Path:
    [file] = data.glob("pg/*/postmaster.pid")
    return file
