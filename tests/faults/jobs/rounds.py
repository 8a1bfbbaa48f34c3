"""A round: jobs are begun, followed and cancelled while processes are killed with -9; then all is checked."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
from tests.faults.jobs import agent, plan, receiver
from tests.faults.jobs.caller import Caller, Seen
from tests.faults.jobs.checker import Report, check
from tests.faults.jobs.world import Victim, World, running, serving

from weft.rpc.testing import wait_until

Say = Callable[[str], None]
_LONGEST_DOWN = 1.5  # seconds
_SAYING = 2.0  # seconds between words about the progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a round is made of. `pace`: mean seconds between two kills; `callers`: jobs that are followed at a time."""

    seed: int
    jobs: int = 500
    pace: float = 1.2
    lease: float = 2.0
    callers: int = 60
    most_kills: int = 1_000_000
    patience: float = 120.0
    """Seconds for jobs to end and webhooks to arrive when nothing is killed any more."""
    only: tuple[str, ...] = ()
    """Names, or the beginnings of names, of what is killed; empty: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it."""

    report: Report
    kills: Mapping[str, int]
    seconds: float
    retries: int

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        return not self.report.violations


async def play(
    folder: Path, setup: Setup, *, database_url: str = "", say: Say = lambda _: None
) -> Outcome:
    """Plays a round in an empty folder whose path is short."""
    chance = random.Random(setup.seed)
    plans = plan.make(setup.jobs, chance)
    began = time.monotonic()
    async with (
        running(folder, seed=setup.seed, lease=setup.lease, database_url=database_url) as world,
        httpx.AsyncClient(timeout=5, limits=httpx.Limits(max_connections=None)) as http,
    ):
        say(f"all runs after {time.monotonic() - began:.1f} s")
        caller = Caller(world, http, chance)
        jobs: list[Seen] = []
        kills: Counter[str] = Counter()
        over = asyncio.Event()
        killing = asyncio.create_task(_kill(world, setup, kills, over, say))
        telling = asyncio.create_task(_tell(jobs, setup.jobs, say))
        try:
            await _call(caller, plans, jobs, setup)
            over.set()
            await killing
            await serving(world)
            async with asyncio.timeout(setup.patience):
                for seen in jobs:
                    await caller.follow(seen)  # returns at once where it has ended
            with contextlib.suppress(TimeoutError):
                await wait_until(lambda: _all_told(world, jobs), _span(setup.patience))
            for seen in jobs:
                await caller.look_again(seen)
        finally:
            for task in (killing, telling):
                task.cancel()
            await asyncio.wait({killing, telling})
        report = check(jobs, agent.calls(world.calls), receiver.deliveries(world.deliveries))
    return Outcome(
        report=report,
        kills=dict(kills),
        seconds=time.monotonic() - began,
        retries=caller.retries,
    )


async def _call(caller: Caller, plans: Sequence[plan.Plan], jobs: list[Seen], setup: Setup) -> None:
    room = asyncio.Semaphore(setup.callers)

    async def one(each: plan.Plan) -> None:
        async with room:
            seen = await caller.begin(each)
            jobs.append(seen)
            await caller.follow(seen)

    async with asyncio.TaskGroup() as group:
        for each in plans:
            group.create_task(one(each))


async def _kill(
    world: World, setup: Setup, kills: Counter[str], over: asyncio.Event, say: Say
) -> None:
    """Kills at random moments until the jobs have ended; whatever it kills runs again when it returns."""
    chance = random.Random(setup.seed + 1)
    victims = [v for v in world.victims if not setup.only or v.name.startswith(setup.only)]
    deck: list[Victim] = []  # whose turn it is: everybody's as often
    async with asyncio.TaskGroup() as group:
        while not over.is_set() and kills.total() < setup.most_kills:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(chance.expovariate(1 / setup.pace)):
                    await over.wait()
            if not deck:
                deck = chance.sample(victims, len(victims))
            ready = [each for each in deck if each.name not in world.down and each.ready()]
            if over.is_set() or not ready:
                continue
            victim = ready[0]
            deck.remove(victim)
            if kills[victim.name] >= victim.most:
                continue
            world.down.add(victim.name)
            victim.kill()
            kills[victim.name] += 1
            say(f"killed {victim.name}")
            group.create_task(_bring_back(world, victim, chance.uniform(0, _LONGEST_DOWN)))


async def _bring_back(world: World, victim: Victim, seconds: float) -> None:
    await asyncio.sleep(seconds)
    world.down.discard(victim.name)


async def _tell(jobs: Sequence[Seen], number: int, say: Say) -> None:
    while True:
        await asyncio.sleep(_SAYING)
        ended = sum(bool(seen.ends) for seen in jobs)
        say(f"{len(jobs)} of {number} jobs accepted, {ended} ended")


def _all_told(world: World, jobs: Sequence[Seen]) -> bool:
    taken = {each.job for each in receiver.deliveries(world.deliveries) if each.taken}
    return taken >= {seen.id for seen in jobs}


def _span(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)
