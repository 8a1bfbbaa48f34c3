"""The drill: restarts every part, one after the other, under load, and counts what was lost."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from tests.faults.rolling.load import Load, Tally
from tests.faults.rolling.world import Part, World, running

from weft.rpc.testing import wait_until

_SETTLED = 1.0  # seconds between two restarts, for the load to show what the last one did
_HANDLED = timedelta(seconds=60)  # for messages that were accepted


@dataclass(kw_only=True)
class Outcome:
    """What came of it.

    Attributes:
        seconds: how long the load ran.
        restarts: seconds that each took, by part.
        calls: calls by xds:/// and at the gateways that were answered.
        failed: those that were not, by what went wrong.
        messages: that were accepted.
        refused: messages that were not accepted, by what went wrong.
        lost: messages that were accepted and never handled.
        again: messages that were handled more than once.
        slowest_call: seconds of the slowest call, by the part that was restarting.
        slowest_message: same, until a message was accepted.
    """

    seconds: float
    restarts: dict[str, float]
    calls: int
    failed: dict[str, int]
    messages: int
    refused: dict[str, int]
    lost: list[str] = field(default_factory=list)
    again: int = 0
    slowest_call: dict[str, float] = field(default_factory=dict)
    slowest_message: dict[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing was lost."""
        return not (self.failed or self.refused or self.lost) and self.calls > 0

    @property
    def shown(self) -> list[str]:
        """For people."""
        return [
            f"{self.calls} calls answered, {sum(self.failed.values())} failed",
            f"{self.messages} messages accepted, {len(self.lost)} lost, {self.again} handled again",
            *(
                f"{name}: restarted in {seconds:.1f} s; slowest call {self.slowest_call.get(name, 0):.2f} s, "
                f"slowest message {self.slowest_message.get(name, 0):.2f} s"
                for name, seconds in self.restarts.items()
            ),
            *(f"failed {number} times {what}" for what, number in self.failed.items()),
            *(f"refused {number} times {what}" for what, number in self.refused.items()),
        ]


async def play(
    folder: Path,
    *,
    rate: float,
    say: Callable[[str], None] = lambda _: None,
    database_url: str = "",
    only: Sequence[str] = (),
) -> Outcome:
    """Starts everything, restarts it part by part, and waits until what was accepted is handled.

    Args:
        folder: for data and logs.
        rate: of calls a second, and of messages.
        say: is told what happens.
        database_url: of a PostgreSQL that is not restarted.
        only: names of parts that are restarted, or their beginnings; none: all.
    """
    async with running(folder, database_url=database_url) as world:
        load = Load(world, rate)
        began = time.perf_counter()
        running_load = asyncio.create_task(load.run())
        restarts: dict[str, float] = {}
        try:
            await wait_until(lambda: load.direct.done and load.gateway.done and load.messages.done)
            for part in world.parts:
                if not only or part.name.startswith(tuple(only)):
                    restarts[part.name] = await _restart(part, load, say)
        finally:
            load.end()
            await running_load
        seconds = time.perf_counter() - began
        lost = await _unhandled(world, load.accepted)
        handled = Counter(_messages(world.calls))
    return Outcome(
        seconds=seconds,
        restarts=restarts,
        calls=load.direct.done + load.gateway.done,
        failed=dict(_named(load.direct, "xds") + _named(load.gateway, "gateway")),
        messages=len(load.accepted),
        refused=dict(load.messages.failed),
        lost=lost,
        again=sum(number - 1 for number in handled.values()),
        slowest_call=_slower(load.direct.slowest, load.gateway.slowest),
        slowest_message=load.messages.slowest,
    )


async def _restart(part: Part, load: Load, say: Callable[[str], None]) -> float:
    say(f"{part.name} restarts")
    load.amid = part.name
    began = time.perf_counter()
    await part.restart()
    took = time.perf_counter() - began
    await asyncio.sleep(_SETTLED)
    load.amid = "rest"
    return took


async def _unhandled(world: World, accepted: Sequence[str]) -> list[str]:
    """Messages that nobody has handled when there was time for it."""

    def left() -> set[str]:
        return set(accepted) - set(_messages(world.calls))

    try:
        await wait_until(lambda: not left(), _HANDLED)
    except TimeoutError:
        return sorted(left())
    return []


def _messages(calls: Path) -> list[str]:
    return [text for text in calls.read_text().splitlines() if text.startswith("message-")]


def _named(tally: Tally, kind: str) -> Counter[str]:
    return Counter({f"{kind}, {what}": number for what, number in tally.failed.items()})


def _slower(*all_of: dict[str, float]) -> dict[str, float]:
    names = {name for each in all_of for name in each}
    return {name: max(each.get(name, 0.0) for each in all_of) for name in names}
