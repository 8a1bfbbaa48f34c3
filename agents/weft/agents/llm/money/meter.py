"""Meters: what a piece of work in this process spends on models, counted as it spends it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from weft.agents.llm.usage import NOTHING, Usage

_METERS: ContextVar[tuple[Meter, ...]] = ContextVar("weft_llm_meters", default=())


@dataclass(slots=True)
class Meter:
    """What was spent within a block.

    Attributes:
        usage: tokens.
        cost: billionths of a US dollar, of the requests whose cost is known.
        requests: how many.
        unpriced: how many of them have no known cost.
    """

    usage: Usage = NOTHING
    cost: int = 0
    requests: int = 0
    unpriced: int = 0

    def add(self, usage: Usage, cost: int | None) -> None:
        """Counts a request."""
        self.usage += usage
        self.requests += 1
        if cost is None:
            self.unpriced += 1
        else:
            self.cost += cost


@contextlib.contextmanager
def metered() -> Iterator[Meter]:
    """A meter of all requests that are made within the block, by this task and those that it starts."""
    meter = Meter()
    token = _METERS.set((*_METERS.get(), meter))
    try:
        yield meter
    finally:
        _METERS.reset(token)


def count(usage: Usage, cost: int | None) -> None:
    """Counts a request on every meter that runs."""
    for meter in _METERS.get():
        meter.add(usage, cost)
