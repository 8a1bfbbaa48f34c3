"""Who does the harm: faults drawn from a seed, some at random moments and some at the worst ones."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.arena import Arena
from tests.faults.processes import Child

_WAYS = ("up", "down", "both")
_HOUR = 3_600.0


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that happens now and then; `weight`: how often, among the others."""

    name: str
    weight: int
    happen: Callable[[], Awaitable[None]]


class Nemesis:
    """Does one thing after the other in each of its lanes, until it is told to stop."""

    def __init__(self, arena: Arena, seed: int, *, pace: float = 1.0) -> None:
        self._arena = arena
        self._choice = random.Random(seed)
        self._pace = pace
        self.counts: Counter[str] = Counter()
        self.kills = 0
        self.cuts = 0
        self.faults = (
            Fault("kill broker", 8, self.kill_broker),
            Fault("end broker", 2, self.end_broker),
            Fault("kill consumer", 6, self.kill_consumer),
            Fault("kill producer", 5, self.kill_producer),
            Fault("kill redis", 5, self.kill_redis),
            Fault("kill redis with a full buffer", 2, self.kill_redis_with_a_full_buffer),
            Fault("kill broker while redis hangs", 3, self.kill_broker_while_redis_hangs),
            Fault("kill redis while it hangs", 2, self.kill_redis_while_it_hangs),
            Fault("kill consumer at its work", 3, self.kill_consumer_at_its_work),
            Fault("kill broker, then its heir", 1, self.kill_broker_and_heir),
            Fault("kill all", 1, self.kill_all),
            Fault("stop broker", 3, self.stop_broker),
            Fault("stop redis", 2, self.stop_redis),
            Fault("stop consumer", 3, self.stop_consumer),
            Fault("stop producer", 1, self.stop_producer),
            Fault("cut", 12, self.cut),
            Fault("refuse", 3, self.refuse),
            Fault("delay", 4, self.delay),
            Fault("stall", 4, self.stall),
            Fault("stall and cut", 4, self.stall_and_cut),
            Fault("trickle", 2, self.trickle),
            Fault("damage", 5, self.damage),
            Fault("step clock", 4, self.step_clock),
            Fault("fill disk", 2, self.fill_disk),
            Fault("fail over", 4 if arena.setup.replica else 0, self.fail_over),
        )

    async def run(
        self,
        seconds: float,
        *,
        lanes: int = 2,
        only: Sequence[str] = (),
        without: Sequence[str] = (),
    ) -> None:
        """For so long. `only`, `without`: faults by name."""
        faults = [
            one
            for one in self.faults
            if one.weight and (not only or one.name in only) and one.name not in without
        ]
        async with asyncio.TaskGroup() as group:
            for _ in range(lanes):
                group.create_task(self._lane(faults, asyncio.get_running_loop().time() + seconds))

    async def _lane(self, faults: Sequence[Fault], until: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            await asyncio.sleep(self._choice.uniform(0.1, 1.6) * self._pace)
            [fault] = self._choice.choices(faults, [one.weight for one in faults])
            self.counts[fault.name] += 1
            await fault.happen()

    @contextlib.asynccontextmanager
    async def _victim(self, kind: str) -> AsyncIterator[Child | None]:
        """A process of a kind that nobody else is at; None: there is none."""
        free = [
            name
            for name in self._arena.children
            if name.startswith(kind) and name not in self._arena.busy
        ]
        if not free:
            yield None
            return
        name = self._choice.choice(free)
        child = self._arena.children[name]
        self._arena.busy.add(name)
        try:
            yield child
        finally:
            child.go_on()
            if not child.alive:
                child.start()
            self._arena.busy.discard(name)

    async def _kill(self, child: Child) -> None:
        self.kills += child.kill()
        if self._choice.random() < 0.5:
            await self._rest(0.1, 2.0)

    async def _rest(self, least: float, most: float) -> None:
        await asyncio.sleep(self._choice.uniform(least, most))

    async def _kill_some(self, kind: str) -> None:
        async with self._victim(kind) as child:
            if child is not None:
                await self._kill(child)

    async def kill_broker(self) -> None:
        await self._kill_some("broker")

    async def end_broker(self) -> None:
        """As whoever deploys a new one would."""
        async with self._victim("broker") as child:
            if child is not None:
                await self._rest(0.5, 1.5)
                child.ask_to_end()
                if not await child.ended(15):
                    self._arena.crashes.append(f"a broker did not end: {child.said()[-2_000:]}")
                    child.kill()

    async def kill_consumer(self) -> None:
        await self._kill_some("consumer")

    async def kill_producer(self) -> None:
        await self._kill_some("producer")

    async def kill_redis(self) -> None:
        await self._kill_some("redis")

    async def kill_redis_with_a_full_buffer(self) -> None:
        """While it has answered what it has not written, if it ever does."""
        async with self._victim("redis") as child:
            if child is not None:
                await self._until(self._buffer_is_full, 1.0)
                await self._kill(child)

    async def _buffer_is_full(self) -> bool:
        return await self._arena.redis.figure("persistence", "aof_buffer_length") > 15_000

    async def kill_broker_while_redis_hangs(self) -> None:
        """What it accepted meanwhile it cannot have stored, for its commands never arrive."""
        async with self._victim("broker") as broker:
            if broker is None:
                return
            link = f"redis-{broker.name.rpartition('-')[2]}a"
            try:
                await self._arena.remote.set(link, "up", stall=True)
                await self._rest(0.1, 0.6)
                self.kills += broker.kill()
                self.cuts += await self._arena.remote.cut(link) > 0
            finally:
                await self._arena.remote.set(link)

    async def kill_redis_while_it_hangs(self) -> None:
        """What was accepted meanwhile cannot be stored, for it never reads it; sometimes a broker dies with it."""
        async with self._victim("redis") as redis, self._victim("broker") as broker:
            if redis is not None:
                redis.stop()
                await self._rest(0.1, 0.6)
                self.kills += redis.kill()
                if broker is not None and self._choice.random() < 0.5:
                    self.kills += broker.kill()

    async def kill_consumer_at_its_work(self) -> None:
        """Between what it got and what it says of it."""
        async with self._victim("consumer") as child:
            if child is not None:
                size = _size(self._arena.histories, "c*.log")
                await self._until(lambda: _size(self._arena.histories, "c*.log") != size, 1.0)
                await self._kill(child)

    async def kill_broker_and_heir(self) -> None:
        """The second dies while it takes over from the first."""
        async with self._victim("broker") as first, self._victim("broker") as second:
            if first is not None and second is not None:
                self.kills += first.kill()
                await self._rest(1.0, 5.0)
                self.kills += second.kill()

    async def kill_all(self) -> None:
        """At the same moment."""
        async with contextlib.AsyncExitStack() as stack:
            victims = [
                await stack.enter_async_context(self._victim(name))
                for name in self._arena.children
                if name != "proxy"
            ]
            for child in victims:
                if child is not None:
                    self.kills += child.kill()

    async def _stop_some(self, kind: str, least: float, most: float) -> None:
        async with self._victim(kind) as child:
            if child is not None:
                child.stop()
                await self._rest(least, most)

    async def stop_broker(self) -> None:
        await self._stop_some("broker", 0.1, 5.0)

    async def stop_redis(self) -> None:
        await self._stop_some("redis", 0.1, 2.5)

    async def stop_consumer(self) -> None:
        await self._stop_some("consumer", 0.2, 4.0)

    async def stop_producer(self) -> None:
        await self._stop_some("producer", 0.1, 2.0)

    async def _until(self, condition: Callable[[], bool | Awaitable[bool]], seconds: float) -> None:
        """Looks as often as it can."""
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.002)

    def _some_links(self) -> list[str]:
        links = self._arena.links
        if self._choice.random() < 0.15:
            return links
        return [self._choice.choice(links)]

    async def _cut(self, links: Sequence[str]) -> None:
        for link in links:
            self.cuts += await self._arena.remote.cut(link) > 0

    async def cut(self) -> None:
        await self._cut(self._some_links())

    async def refuse(self) -> None:
        """Cut off for a while."""
        links = self._some_links()
        try:
            for link in links:
                await self._arena.remote.refuse(link, refuse=True)
            await self._cut(links)
            await self._rest(0.1, 2.0)
        finally:
            for link in links:
                await self._arena.remote.refuse(link, refuse=False)

    async def _trouble(self, least: float, most: float, **trouble: float) -> list[str]:
        """For a while; the links it befell."""
        links, way = self._some_links(), self._choice.choice(_WAYS)
        try:
            for link in links:
                await self._arena.remote.set(link, way, **trouble)
            await self._rest(least, most)
        finally:
            for link in links:
                await self._arena.remote.set(link)
        return links

    async def delay(self) -> None:
        await self._trouble(0.5, 3.0, delay=self._choice.uniform(0.005, 0.3))

    async def stall(self) -> None:
        """Nothing arrives for a while, and then all does."""
        await self._trouble(0.2, 4.0, stall=True)

    async def stall_and_cut(self) -> None:
        """Nothing arrives for a while, and then it never does."""
        links, way = self._some_links(), self._choice.choice(_WAYS)
        try:
            for link in links:
                await self._arena.remote.set(link, way, stall=True)
            await self._rest(0.1, 3.0)
            await self._cut(links)
        finally:
            for link in links:
                await self._arena.remote.set(link)

    async def trickle(self) -> None:
        await self._trouble(0.5, 2.0, trickle=self._choice.choice((20, 200, 2_000)))

    async def damage(self) -> None:
        """Some bytes arrive as others, so that the receiver sees it. Each breaks a connection."""
        links = await self._trouble(0.1, 0.4, damage=1)
        self.cuts += len(links)

    async def step_clock(self) -> None:
        """The clock of Redis' host jumps, stays so for a while, and mostly jumps back."""
        host = self._arena.redis.host
        if host is not None:
            host.step_clock(self._choice.choice((_HOUR, -_HOUR, -2 * _HOUR, 30.0, -30.0)))
            await self._rest(0.5, 4.0)
            if self._choice.random() < 0.7:
                host.step_clock(0)

    async def fill_disk(self) -> None:
        """Redis cannot write for a while; where it writes always, it ends and has to be started again."""
        async with self._victim("redis") as child:
            if child is not None:
                self._arena.redis.fill_disk()
                await self._rest(0.3, 2.0)
                self._arena.redis.free_disk()
                await self._rest(0.2, 0.3)  # it may be about to end

    async def fail_over(self) -> None:
        """The primary dies for good, and comes back as a replica of its former replica."""
        async with self._victim("redis") as primary, self._victim("replica") as replica:
            if primary is None or replica is None:
                return
            await self._arena.fail_over()
            self.kills += 1
            await self._rest(0.2, 1.5)
            primary.start()
            await self._until(self._arena.redis.has_replica, 20.0)


def _size(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern))
