"""All that runs in a round, each a process: PostgreSQL, Redis, the registry, gateways, agents, a receiver of webhooks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import httpx
from tests.broker.servers import Server, find_program
from tests.faults.processes import Child, python
from tests.ports import free_port

from weft import embedded
from weft.rpc.testing import wait_until

_STARTING = timedelta(seconds=60)
_LOOKING = 0.2  # seconds
# PostgreSQL's supervisor gives up after five deaths within a minute.
_MOST_DATABASE_KILLS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    """Something to kill with -9."""

    name: str
    kill: Callable[[], object]
    alive: Callable[[], bool]
    ready: Callable[[], bool]
    """Whether it has come up: who is killed before shows nothing."""
    start: Callable[[], None]
    most: int = 1_000_000
    """Kills that it may suffer."""


@dataclass(slots=True, kw_only=True)
class World:
    """What runs."""

    folder: Path
    gateways: list[str] = field(default_factory=list)
    """Their URLs."""
    hook: str = ""
    """Where webhooks go."""
    victims: list[Victim] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    """Those that are not to be started again yet, by name."""

    @property
    def calls(self) -> Path:
        """What agents write down."""
        return self.folder / "calls"

    @property
    def deliveries(self) -> Path:
        """What the receiver writes down."""
        return self.folder / "deliveries"


@contextlib.asynccontextmanager
async def running(
    folder: Path, *, seed: int, lease: float, database_url: str = "", replicas: int = 2
) -> AsyncIterator[World]:
    """Starts all of it. With a `database_url` its PostgreSQL is used, and not killed."""
    world = World(folder=folder)
    async with contextlib.AsyncExitStack() as stack:
        redis = Server(await find_program(), folder / "redis")
        stack.callback(redis.kill)
        await redis.start()
        world.victims.append(
            Victim(
                name="redis",
                kill=redis.kill,
                alive=lambda: not redis.ended(),
                ready=lambda: not redis.ended(),
                start=redis.begin,
            )
        )
        if not database_url:
            data = folder / "data"
            found = await stack.enter_async_context(embedded.launch(data, redis_url=redis.url))
            database_url = found.database_url
            world.victims.append(
                Victim(
                    name="postgresql",
                    kill=lambda: _kill_postmaster(data),
                    ready=lambda: True,
                    alive=lambda: True,  # it has a supervisor of its own
                    start=lambda: None,
                    most=_MOST_DATABASE_KILLS,
                )
            )
        registry, port = f"127.0.0.1:{free_port()}", free_port()
        world.hook = f"http://127.0.0.1:{port}/"
        settings = {
            "GRPC_VERBOSITY": "ERROR",
            "TMPDIR": str(folder),  # where a gateway that is killed leaves a socket
            "WEFT_DATABASE_URL": database_url,
            "WEFT_REDIS_URL": redis.url,
            "WEFT_REGISTRY": registry,
            "WEFT_REGISTRY_LISTEN": registry,
            "WEFT_REGISTRY_METRICS": "127.0.0.1:0",
            "WEFT_REGISTRY_COLD_START": "0s",
            "WEFT_GATEWAY_GRPC_LISTEN": "127.0.0.1:0",
            "WEFT_GATEWAY_METRICS": "127.0.0.1:0",
            # A limit that nobody reaches: it is counted in Redis.
            "WEFT_GATEWAY_LIMITS": "per=identity rate=100000/s",
            "WEFT_GATEWAY_JOB_LEASE": f"{lease}s",
            "WEFT_GATEWAY_JOBS_AT_ONCE": "16",
            "WEFT_GATEWAY_WEBHOOK_PAUSE": "0.1s",
            "WEFT_GATEWAY_WEBHOOK_LONGEST_PAUSE": "2s",
            "WEFT_GATEWAY_WEBHOOK_TIME": "1s",
            "WEFT_GATEWAY_WEBHOOK_ATTEMPTS": "100",
            "WEFT_GATEWAY_WEBHOOK_NETWORKS": "127.0.0.0/8",
            "WEFT_TRACE_SAMPLE": "0",
        }  # fmt: skip

        def child(name: str, *command: str, **further: str) -> Child:
            made = Child(python(*command), folder / f"{name}.log", settings | further)
            stack.callback(made.kill)
            made.start()
            return made

        child("registry", "weft.cli", "registry")
        for number in range(1, replicas + 1):
            listen = f"127.0.0.1:{free_port()}"
            world.gateways.append(f"http://{listen}")
            gateway = child(f"gateway-{number}", "weft.cli", "gateway", WEFT_GATEWAY_LISTEN=listen)
            agent = child(f"agent-{number}", "tests.faults.jobs.agent", registry, str(world.calls))
            world.victims += [_victim(gateway), _victim(agent)]
        world.victims.append(
            _victim(
                child(
                    *("receiver", "tests.faults.jobs.receiver"),
                    *(str(port), str(world.deliveries), str(seed)),
                )
            )
        )
        supervising = asyncio.create_task(_supervise(world))
        try:
            await serving(world)
            yield world
        finally:
            supervising.cancel()
            await asyncio.wait({supervising})


async def serving(world: World) -> None:
    """Returns when every gateway serves the agent."""

    async def served() -> bool:
        answers = []
        for url in world.gateways:
            with contextlib.suppress(httpx.HTTPError):
                answers.append((await http.get(f"{url}/v1/echo/ready")).status_code)
        return answers == [200] * len(world.gateways)

    async with httpx.AsyncClient(timeout=5) as http:
        await wait_until(served, timeout=_STARTING)


async def _supervise(world: World) -> None:
    """Starts again what has died: a gateway ends by itself when it is started while its database is away."""
    while True:
        for victim in world.victims:
            if victim.name not in world.down and not victim.alive():
                victim.start()
        await asyncio.sleep(_LOOKING)


def _victim(child: Child) -> Victim:
    return Victim(
        name=child.name,
        kill=child.kill,
        alive=lambda: child.alive,
        ready=lambda: child.alive and child.told(b"ready"),
        start=child.start,
    )


def _kill_postmaster(data: Path) -> None:
    for file in data.glob("pg/*/postmaster.pid"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            os.kill(int(file.read_text().split()[0]), signal.SIGKILL)


__all__ = ["Victim", "World", "running", "serving"]
