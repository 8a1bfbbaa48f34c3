"""How the cost of a mesh grows with what it carries: agents, instances, hosts, subscribers, calls, messages, streams.

Each part is a process of its own. A sweep sets one number to several values and reads the CPU time and the resident
memory of each part; a line is fitted through the points. Its slope is what one more costs; how far the points are from
the line says whether cost grows in proportion.

KEY           of each line: how far the worst point is from it, as a share of the largest value (0.1: ten percent)
figures       costs: slopes, by sweep and part; points: what was read

docs/capacity.md explains each cost; capacity_plan.py does the arithmetic for a site of a size.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import capacity_roles as roles
import crowds
import measure
import parts
import uvloop

from weft import embedded

_TTL = 4.0  # seconds: as granted in production
_SETTLE = 1.0  # seconds
_PULSE = 0.02  # CPU seconds in one
_KB = 1_024


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The values of each sweep."""

    instances: Sequence[int] = (1_000, 2_500, 5_000, 10_000, 20_000)
    agents: Sequence[int] = (100, 1_000, 5_000, 10_000)
    hosts: Sequence[int] = (100, 250, 500, 1_000)
    watchers: Sequence[int] = (0, 250, 500, 1_000)
    clients: Sequence[int] = (0, 50, 100, 200)
    others: Sequence[int] = (1, 100, 1_000)  # agents that a caller does not call
    bytes: Sequence[int] = (100, 1_000, 10_000, 100_000)
    queues: Sequence[int] = (1, 10, 100, 1_000)
    waiting: Sequence[int] = (0, 10_000, 25_000, 50_000)
    streams: Sequence[int] = (0, 1_000, 2_500, 5_000, 10_000)
    directory: tuple[int, int] = (1_000, 10_000)  # agents and instances, where these do not vary
    changes: int = 20
    messages: int = 10_000
    events: int = 20_000
    seconds: float = 5.0  # of a look at what runs by itself
    calling: float = 2.0  # seconds


QUICK = Size(
    instances=(50, 100),
    agents=(5, 10),
    hosts=(2, 4),
    watchers=(0, 10),
    clients=(0, 4),
    others=(1, 5),
    bytes=(100, 1_000),
    queues=(1, 5),
    waiting=(0, 200),
    streams=(0, 20),
    directory=(10, 100),
    changes=3,
    messages=200,
    events=200,
    seconds=0.5,
    calling=0.3,
)

Point = dict[str, float]


@dataclass(frozen=True, slots=True)
class Line:
    """A line through points: y = base + slope * x; `off`: the worst point's distance, as a share of the largest y."""

    base: float
    slope: float
    off: float


def line(points: Sequence[tuple[float, float]]) -> Line:
    """The line of least squares. Raises StatisticsError where all x are the same."""
    xs, ys = zip(*points, strict=True)
    slope, base = statistics.linear_regression(xs, ys)
    worst = max(abs(y - base - slope * x) for x, y in points)
    return Line(base, slope, worst / max(*ys, 1e-9))


class Bench:
    """The servers of one machine, and what was found."""

    def __init__(self, size: Size, servers: embedded.Endpoints, postgres: int) -> None:
        self.size, self._servers, self._postgres = size, servers, postgres
        self._databases = 0
        self.points: dict[str, list[Point]] = {}

    async def database(self) -> str:
        """The URL of a new database."""
        self._databases += 1
        return await measure.fresh_database(
            self._servers.database_url, f"capacity_{self._databases}"
        )

    def note(self, sweep: str, x: float, **found: float) -> None:
        """Notes a point of a sweep."""
        measure.progress(f"{sweep} {x:g}: " + ", ".join(f"{k} {v:.4g}" for k, v in found.items()))
        self.points.setdefault(sweep, []).append({"n": x, **found})

    async def spent(self, parts: Mapping[str, Callable[[], float]], doing: Awaitable[Any]) -> Point:
        """CPU seconds of parts while something is done, and the `seconds` it took."""
        before = {name: cpu() for name, cpu in parts.items()}
        began = time.perf_counter()
        await doing
        seconds = time.perf_counter() - began
        return {"seconds": seconds} | {name: cpu() - before[name] for name, cpu in parts.items()}

    # What the registry holds

    @contextlib.asynccontextmanager
    async def directory(
        self, agents: int, instances: int, hosts: int, *more: str
    ) -> AsyncIterator[tuple[str, parts.Part, str, list[parts.Part]]]:
        """A replica with so many instances of agents at hosts: its address, its process, its database; further parts."""
        async with contextlib.AsyncExitStack() as stack:
            replica = await parts.start(stack, __file__, "replica")
            holder = await parts.start(stack, __file__, "hosts")
            further = [await parts.start(stack, __file__, role) for role in more]
            url = await self.database()
            begun = await replica.do("begin", database_url=url, ttl=_TTL)
            await holder.do(
                "begin",
                registries=begun["address"],
                prefix="0",
                hosts=hosts,
                instances=instances // hosts,
                agents=agents,
            )
            await settled(replica)
            yield begun["address"], replica, url, further

    async def held(self, sweep: str, agents: int, instances: int, hosts: int, x: int) -> None:
        """What a replica with so much costs while nothing changes."""
        async with self.directory(agents, instances, hosts) as (_, replica, url, _):
            used = await self.spent(
                {"registry": replica.cpu, "postgres": self._postgres_cpu},
                asyncio.sleep(self.size.seconds),
            )
            self.note(
                sweep,
                x,
                registry_mb=replica.memory(),
                registry_cpu=used["registry"] / used["seconds"],
                postgres_cpu=used["postgres"] / used["seconds"],
                database_mb=await database_size(url),
            )

    async def registry(self) -> None:
        """Sweeps of what the registry holds, and of those who follow it."""
        size = self.size
        agents, instances = size.directory
        for count in size.instances:
            await self.held("instances", agents, count, hosts_for(count, agents), count)
        for count in size.agents:
            await self.held("agents", count, instances, hosts_for(instances, count), count)
        for count in size.hosts:
            await self.held("hosts", min(100, count), count, count, count)
        await self.followers("watchers", size.watchers)
        await self.followers("clients", size.clients)

    async def followers(self, sweep: str, counts: Sequence[int]) -> None:
        """What a change costs with so many who follow all agents, and what they cost themselves."""
        agents, instances = self.size.directory
        steps = [b - a for a, b in zip((0, *counts), counts, strict=False)]
        hosts = hosts_for(instances, agents)
        more = ["turner"] + [sweep for step in steps if step]
        async with self.directory(agents, instances, hosts, *more) as (address, replica, _, found):
            turner, *waiting = found
            followers: list[parts.Part] = []
            revision = (await turner.do("begin", address=address))["revision"]
            for count, step in zip(counts, steps, strict=True):
                if step:
                    follower = waiting.pop(0)
                    what: dict[str, Any] = {"registries": [address], "count": step}
                    what |= {"revision": revision} if sweep == "watchers" else {"agents": agents}
                    await follower.do("begin", **what)
                    followers.append(follower)
                revision = await self._change(turner, followers, sweep)
                await asyncio.sleep(_SETTLE)
                used = await self.spent(
                    {"registry": replica.cpu, "postgres": self._postgres_cpu},
                    self._changes(turner, followers, sweep),
                )
                idle = await self.spent({"registry": replica.cpu}, asyncio.sleep(self.size.seconds))
                rate = idle["registry"] / idle["seconds"]
                each = 1e3 / self.size.changes
                self.note(
                    sweep,
                    count,
                    registry_mb=replica.memory(),
                    change_ms=(used["registry"] - rate * used["seconds"]) * each,
                    postgres_change_ms=used["postgres"] * each,
                )

    async def _changes(self, turner: parts.Part, followers: list[parts.Part], kind: str) -> None:
        for _ in range(self.size.changes):
            await self._change(turner, followers, kind)

    async def _change(self, turner: parts.Part, followers: list[parts.Part], kind: str) -> int:
        if kind == "clients":
            await asyncio.gather(*(each.do("count") for each in followers))
        revision = (await turner.do("turn"))["revision"]
        what = {} if kind == "clients" else {"revision": revision}
        await asyncio.gather(*(each.do("heard", **what) for each in followers))
        return int(revision)

    # Calls and streams

    async def calls(self) -> None:
        """What a call costs, by the way it takes, beside other agents and with texts of a size."""
        size = self.size
        for others in size.others:
            roles_of = ("agent", "door", "caller")
            async with self.directory(others, others, hosts_for(others, others), *roles_of) as (
                address,
                _,
                url,
                found,
            ):
                agent, door, caller = found
                await begin(address, url, agent, door, caller)
                await self._calls("calls", others, 100, agent, door, caller)
                if others == size.others[0]:
                    for count in size.bytes:
                        await self._calls("call_bytes", count, count, agent, door, caller)
                    await self._events(agent, door, caller)

    async def _calls(
        self, sweep: str, x: int, size: int, agent: parts.Part, door: parts.Part, caller: parts.Part
    ) -> None:
        found: Point = {}
        for way in ("direct", "grpc", "rest"):
            counted: dict[str, int] = {}

            async def make(seconds: float, way: str = way) -> None:
                counted.update(await caller.do("calls", way=way, seconds=seconds, size=size))  # noqa: B023

            await make(self.size.calling / 4)
            cpu = {"agent": agent.cpu, "gateway": door.cpu, "caller": caller.cpu}
            used = await self.spent(cpu, make(self.size.calling))
            for part in cpu:
                if (way, part) != ("direct", "gateway"):
                    found[f"{way}_{part}_us"] = used[part] / counted["calls"] * 1e6
            found[f"{way}_per_second"] = counted["calls"] / used["seconds"]
        self.note(sweep, x, **found)

    async def _events(self, agent: parts.Part, door: parts.Part, caller: parts.Part) -> None:
        for count in (self.size.events // 4, self.size.events):
            got: dict[str, int] = {}

            async def read() -> None:
                got.update(await caller.do("stream", count=count, size=100))  # noqa: B023

            used = await self.spent({"agent": agent.cpu, "gateway": door.cpu}, read())
            if got["messages"] != count:
                raise AssertionError(f"{got['messages']} events of {count}")
            self.note(
                "events", count, gateway_ms=used["gateway"] * 1e3, agent_ms=used["agent"] * 1e3
            )

    async def streams(self) -> None:
        """What open streams cost that say nothing."""
        for kind in ("sse", "grpc"):
            parts_of = ("agent", "door", "caller")
            async with (
                self.directory(1, 1, 1, *parts_of) as (address, _, url, found),
                measure.children(__file__) as start,
            ):
                agent, door, caller = found
                begun = await begin(address, url, agent, door, caller)
                await caller.do("calls", way="rest", seconds=self.size.calling, size=100)
                open_now = 0
                for count in self.size.streams:
                    if count > open_now:
                        more = str(count - open_now)
                        what = ("crowd", kind, begun["http"], begun["grpc"], more)
                        await asyncio.to_thread(start, *what)
                        open_now = count
                    await asyncio.sleep(_SETTLE)
                    cpu = {"agent": agent.cpu, "gateway": door.cpu}
                    used = await self.spent(cpu, asyncio.sleep(self.size.seconds))
                    self.note(
                        f"streams_{kind}",
                        count,
                        gateway_mb=door.memory(),
                        agent_mb=agent.memory(),
                        gateway_cpu=used["gateway"] / used["seconds"],
                        agent_cpu=used["agent"] / used["seconds"],
                    )

    # Messages

    async def messages(self) -> None:
        """What a message costs, by queues, and while it waits."""
        async with contextlib.AsyncExitStack() as stack:
            post = await parts.start(stack, __file__, "post")
            takers = await parts.start(stack, __file__, "takers")
            senders = await parts.start(stack, __file__, "senders")
            redis = await stack.enter_async_context(embedded.redis_client(self._servers.redis_url))
            url = await self.database()
            begun = await post.do("begin", redis_url=self._servers.redis_url, database_url=url)
            for part in (takers, senders):
                await part.do("begin", broker=begun["address"])
            pid = int((await redis.info("server"))["process_id"])
            cpu = {
                "broker": post.cpu,
                "redis": lambda: measure.cpu_of(pid),
                "postgres": self._postgres_cpu,
                "senders": senders.cpu,
                "takers": takers.cpu,
            }
            for queues in self.size.queues:
                await self._sent(queues, cpu, takers, senders, url)
            await self._wait(takers, senders, post, redis)

    async def _sent(
        self,
        queues: int,
        cpu: Mapping[str, Callable[[], float]],
        takers: parts.Part,
        senders: parts.Part,
        url: str,
    ) -> None:
        prefix, count = f"q{queues}", self.size.messages
        await takers.do("consume", prefix=prefix, queues=queues)
        before = await database_size(url)

        async def send() -> None:
            told = {"prefix": prefix, "queues": queues, "count": count, "size": _KB}
            await asyncio.gather(senders.do("publish", **told), takers.do("taken", count=count))
            await archived(url, prefix, count)

        used = await self.spent(cpu, send())
        found = {f"{part}_us": used[part] / count * 1e6 for part in cpu}
        found["archive_kb"] = (await database_size(url) - before) / count * 1e3
        self.note("queues", queues, **found, per_second=count / used["seconds"])

    async def _wait(
        self, takers: parts.Part, senders: parts.Part, post: parts.Part, redis: Any
    ) -> None:
        await takers.do("declare", prefix="waiting", queues=1)
        there = 0
        for count in self.size.waiting:
            told = {"prefix": "waiting", "queues": 1, "count": count - there, "size": _KB}
            await senders.do("publish", **told)
            there = count
            memory = (await redis.info("memory"))["used_memory"] / 1e6
            self.note("waiting", count, redis_mb=memory, broker_mb=post.memory())

    def _postgres_cpu(self) -> float:
        return measure.cpu_of(self._postgres)


async def begin(
    registry: str, database_url: str, agent: parts.Part, door: parts.Part, caller: parts.Part
) -> Any:
    """Starts an agent, the gateway and a caller; the gateway's addresses."""
    await agent.do("begin", registry=registry, name="echo")
    begun = await door.do("begin", registry=registry, database_url=database_url)
    where = {"grpc_address": begun["grpc"], "http": begun["http"]}
    await caller.do("begin", registry=registry, agent="echo", **where)
    return begun


async def settled(part: parts.Part) -> None:
    """Returns when it is as busy as a second before: what was begun is done, and what remains is its pulse."""
    async with asyncio.timeout(60):
        former, busy = math.inf, 1.0
        while abs(busy - former) > _PULSE:
            before = part.cpu()
            await asyncio.sleep(_SETTLE)
            former, busy = busy, (part.cpu() - before) / _SETTLE


def hosts_for(instances: int, agents: int) -> int:
    """Hosts of up to 100 instances, each of another agent."""
    return instances // min(100, agents, instances)


async def database_size(url: str) -> float:
    """Size of a database, MB."""
    connection = await asyncpg.connect(url)
    size = await connection.fetchval("select pg_database_size(current_database())")
    await connection.close()
    return float(size) / 1e6


async def archived(url: str, prefix: str, count: int) -> None:
    """Waits until the archive has so many messages of queues."""
    connection = await asyncpg.connect(url)
    find = "select count(*) from broker.messages where queue like $1"
    async with asyncio.timeout(60):
        while await connection.fetchval(find, f"{prefix}-%") < count:  # noqa: ASYNC110 others write it
            await asyncio.sleep(0.1)
    await connection.close()


def lines(points: Mapping[str, Sequence[Point]]) -> dict[str, dict[str, Line]]:
    """The line through each thing that was read, by sweep."""
    return {
        sweep: {
            name: line([(point["n"], point[name]) for point in read])
            for name in read[0]
            if name != "n"
        }
        for sweep, read in points.items()
    }


_SWEEPS: Mapping[str, Callable[[Bench], Awaitable[None]]] = {
    "registry": Bench.registry,
    "calls": Bench.calls,
    "streams": Bench.streams,
    "messages": Bench.messages,
}


async def run(size: Size, wanted: Sequence[str]) -> Bench:
    """Measures."""
    with tempfile.TemporaryDirectory() as data:
        async with embedded.launch(Path(data)) as servers:
            bench = Bench(size, servers, measure.postgres_of(Path(data)))
            for name in wanted:
                await _SWEEPS[name](bench)
            measure.progress("done")
    return bench


def main() -> None:
    """Runs a role, or the measurement."""
    parser = measure.arguments(__doc__, rounds=1)
    parser.add_argument("--quick", action="store_true", help="little of everything, for tests")
    parser.add_argument("--only", action="append", choices=_SWEEPS, help="these; may be repeated")
    options = parser.parse_args()
    if options.role == "crowd":
        uvloop.run(crowds.gather(*options.rest))
        sys.exit()
    if options.role:
        uvloop.run(parts.play(roles.ROLES, options.role))
        sys.exit()
    crowds.raise_limit()
    bench = uvloop.run(run(QUICK if options.quick else Size(), options.only or list(_SWEEPS)))
    found = lines(bench.points)
    ratios = {
        f"{sweep}.{name}": [each.off]
        for sweep, named in found.items()
        for name, each in named.items()
    }
    costs = {
        sweep: {name: {"base": each.base, "each": each.slope} for name, each in named.items()}
        for sweep, named in found.items()
    }
    figures = {"costs": costs, "points": bench.points}
    if options.json:
        measure.report(ratios, figures, as_json=True)
        return
    for sweep, named in found.items():
        print(f"\n{sweep}")
        for point in bench.points[sweep]:
            print("  " + json.dumps({k: float(f"{v:.4g}") for k, v in point.items()}))
        for name, each in named.items():
            print(f"  {name:24} {each.base:12.4g} + {each.slope:10.4g} n   off {each.off:.0%}")


if __name__ == "__main__":
    main()
