"""A round: runs are begun, decided and followed while processes are killed with -9 and stopped; then all is checked."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.orchestrator import agent, evidence, graph
from tests.faults.orchestrator.caller import Caller, Seen
from tests.faults.orchestrator.checker import Report, check
from tests.faults.orchestrator.evidence import Blow, Evidence, Span
from tests.faults.orchestrator.world import Victim, World, running, serving

Say = Callable[[str], None]
_LONGEST_DOWN = 1.5  # seconds
_MOST_AWAY = 2  # of all at a time
_SAYING = 2.0  # seconds between words about the progress
_SETTLES = 2.0  # seconds until whoever waited for the database has noticed that it is back
_LONGER = (1.5, 2.5)  # leases for which a worker is stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a round is made of. `spread`: seconds over which runs begin; `pace`: mean seconds between two blows."""

    seed: int
    runs: int = 60
    spread: float = 90.0
    pace: float = 1.5
    longest: float = 1.2
    """Seconds that a call takes at most."""
    lease: float = 2.0
    slack: float = 1.0
    """Seconds that a run may lie idle when the lease of its worker has run out."""
    workers: int = 3
    most_blows: int = 1_000_000
    only: tuple[str, ...] = ()
    """Names, or the beginnings of names, of what is killed; empty: all."""
    patience: float = 180.0
    """Seconds for runs to end when nothing is killed any more."""


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


@dataclass(slots=True)
class _Blows:
    kills: list[Blow] = field(default_factory=list)
    stops: list[Blow] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


async def play(folder: Path, setup: Setup, *, say: Say = lambda _: None) -> Outcome:
    """Plays a round in an empty folder whose path is short."""
    chance = random.Random(setup.seed)
    plans = graph.make(setup.runs, chance, setup.longest)
    began = time.monotonic()
    async with running(folder, seed=setup.seed, lease=setup.lease, workers=setup.workers) as world:
        say(f"all runs after {time.monotonic() - began:.1f} s")
        caller = Caller(world.orchestrators, chance)
        runs: dict[str, Seen] = {}
        blows = _Blows()
        over = asyncio.Event()
        deciding = asyncio.create_task(caller.decide(runs))
        killing = asyncio.create_task(_strike(world, setup, blows, over, say))
        telling = asyncio.create_task(_tell(runs, setup.runs, say))
        try:
            await _call(caller, plans, runs, setup)
            over.set()
            await killing
            await serving(world)
            for seen in runs.values():
                await caller.look_again(seen)
        finally:
            for task in (deciding, killing, telling):
                task.cancel()
            await asyncio.wait({deciding, killing, telling})
            await caller.close()
        memory = agent.memory_at(world.redis.url)
        found = Evidence(
            runs=await evidence.stored(world.database.url),
            remembered=await agent.remembered(memory),
            kills=blows.kills,
            stops=blows.stops,
            dark=_dark(world),
            lease=setup.lease,
            slack=setup.slack,
        )
        await memory.aclose()
        report = check(list(runs.values()), found)
    return Outcome(
        report=report,
        kills=dict(blows.counts),
        seconds=time.monotonic() - began,
        retries=caller.retries,
    )


async def _call(
    caller: Caller, plans: Sequence[graph.Plan], runs: dict[str, Seen], setup: Setup
) -> None:
    async def one(number: int, plan: graph.Plan) -> None:
        await asyncio.sleep(number * setup.spread / len(plans))
        seen = runs[plan.id] = Seen(plan=plan)
        await caller.begin(seen)
        with contextlib.suppress(TimeoutError):  # the report says that it has not ended
            async with asyncio.timeout(setup.patience):
                await caller.follow(seen)

    async with asyncio.TaskGroup() as group:
        for number, plan in enumerate(plans):
            group.create_task(one(number, plan))


async def _strike(world: World, setup: Setup, blows: _Blows, over: asyncio.Event, say: Say) -> None:
    """Kills and stops at random moments until the runs have ended; whatever it struck runs again when it returns."""
    chance = random.Random(setup.seed + 1)
    victims = [v for v in world.victims if not setup.only or v.name.startswith(setup.only)]
    kinds = [(victim, False) for victim in victims]
    kinds += [(victim, True) for victim in victims if victim.worker][:2]
    deck: list[tuple[Victim, bool]] = []  # whose turn it is: everybody's as often
    async with asyncio.TaskGroup() as group:
        while not over.is_set() and blows.counts.total() < setup.most_blows:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(chance.expovariate(1 / setup.pace)):
                    await over.wait()
            deck = deck or chance.sample(kinds, len(kinds))
            ready = [each for each in deck if await each[0].ready()]
            # On a machine that is slow to start processes there would soon be nobody left to carry runs out.
            if over.is_set() or not ready or len(world.gone_now()) >= _MOST_AWAY:
                continue
            victim, stops = ready[0]
            deck.remove(ready[0])
            world.gone(victim.name)
            blows.counts[f"{victim.name} stopped" if stops else victim.name] += 1
            begin = time.time()
            if stops:
                say(f"stopped {victim.name}")
                seconds = setup.lease * chance.uniform(*_LONGER)
                group.create_task(_stop(world, victim, begin, seconds, blows))
                continue
            if victim.worker:
                blows.kills.append(Blow(worker=victim.name, begin=begin))
            world.down.add(victim.name)
            victim.kill()
            say(f"killed {victim.name}")
            group.create_task(_bring_back(world, victim, chance.uniform(0, _LONGEST_DOWN)))


async def _stop(world: World, victim: Victim, begin: float, seconds: float, blows: _Blows) -> None:
    assert victim.worker is not None
    victim.worker.stop()
    await asyncio.sleep(seconds)
    blows.stops.append(Blow(worker=victim.name, begin=begin, end=time.time()))
    victim.worker.go_on()
    world.back(victim.name)


async def _bring_back(world: World, victim: Victim, seconds: float) -> None:
    await asyncio.sleep(seconds)
    world.down.discard(victim.name)


async def _tell(runs: Mapping[str, Seen], number: int, say: Say) -> None:
    while True:
        await asyncio.sleep(_SAYING)
        ended = sum(bool(seen.ends) for seen in runs.values())
        say(f"{len(runs)} of {number} runs begun, {ended} ended")


def _dark(world: World) -> Sequence[Span]:
    """When the database was away, or all orchestrators were."""
    now = time.time()
    spans = [(each.name, each.begin, each.end or now) for each in world.away]
    dark = [
        Span(begin=begin, end=end + _SETTLES)
        for name, begin, end in spans
        if name == world.database.name
    ]
    workers = [span for span in spans if span[0].startswith("orchestrator")]
    for moment in sorted(begin for _, begin, _ in workers):
        away = {name: end for name, begin, end in workers if begin <= moment < end}
        if len(away) == len(world.orchestrators):
            dark.append(Span(begin=moment, end=min(away.values()) + _SETTLES))
    return dark
