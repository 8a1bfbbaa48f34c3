"""What callers ask for in a round: jobs of all kinds, some that fail, some that are cancelled. The seed decides."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import grpc

_FAILURES = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)
_SHARE_FAILING, _SHARE_CANCELLED = 0.1, 0.12
_LEAST, _MOST = 0.05, 1.2  # seconds a call takes
_MESSAGES = 12


class Kind(StrEnum):
    """A method of the agent `echo`."""

    SAY = "Say"
    ONCE = "SayOnce"
    """Has effects: it may not be called twice."""
    REPEAT = "Repeat"
    """Answers with a stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A job. `text` is its own alone. `cancel_after`: seconds after it was accepted; None: it is not cancelled."""

    kind: Kind
    text: str
    seconds: float
    messages: int
    fails: grpc.StatusCode | None
    cancel_after: float | None

    @property
    def request(self) -> dict[str, Any]:
        """What is sent."""
        code = self.fails.value[0] if self.fails is not None else 0
        if self.kind is Kind.REPEAT:
            pause = f"{self.seconds / self.messages:.3f}s"
            return {
                "text": self.text, "count": self.messages, "pause": pause, "failWith": code
            }  # fmt: skip
        say = {"text": self.text, "delay": f"{self.seconds:.3f}s", "failWith": code}
        return {"say": say} if self.kind is Kind.ONCE else say


def make(jobs: int, chance: random.Random) -> Sequence[Plan]:
    """The jobs of a round, all kinds alike often."""
    plans = []
    for number in range(jobs):
        kind = tuple(Kind)[number % len(Kind)]
        seconds = chance.uniform(_LEAST, _MOST)
        cancelled = chance.random() < _SHARE_CANCELLED
        plans.append(
            Plan(
                kind=kind,
                text=f"{kind}-{number}",
                seconds=seconds,
                messages=chance.randint(1, _MESSAGES),
                fails=chance.choice(_FAILURES) if chance.random() < _SHARE_FAILING else None,
                cancel_after=chance.uniform(0, 2 * seconds) if cancelled else None,
            )
        )
    return plans
