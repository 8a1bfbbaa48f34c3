"""Second attempts: which failures, when, how many."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import grpc
import pytest

from weft import rpc
from weft.gateway.guards.retries import Retries, RetrySettings
from weft.rpc.errors import DETAILS_KEY
from weft.rpc.testing import wait_until

C = grpc.StatusCode


def failure(code: grpc.StatusCode = C.UNAVAILABLE, *trailing: tuple[str, Any]) -> Exception:
    metadata = grpc.aio.Metadata(*trailing)
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, "failed")


def told(error: rpc.Error) -> Exception:
    return failure(error.code, (DETAILS_KEY, rpc.status_proto(error).SerializeToString()))


class Tried:
    """An agent that ends each attempt as it is told; what is said last, it says from then on."""

    def __init__(self, clock: Any, *outcomes: Any, **settings: Any) -> None:
        self.outcomes = list(outcomes)
        self.count = 0
        self.pauses: list[float] = []
        self.events: list[str] = []
        self.spread = 1.0
        self.clock = clock

        async def sleep(seconds: float) -> None:
            self.pauses.append(round(seconds, 3))
            clock.advance(seconds)

        self.retries = Retries(
            RetrySettings(**settings),
            on_event=lambda _, event: self.events.append(event),
            clock=clock,
            spread=lambda: self.spread,
            sleep=sleep,
        )

    async def attempt(self) -> str:
        self.count += 1
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        if isinstance(outcome, float):
            await asyncio.sleep(outcome)
        return f"answer {self.count}"

    async def run(self, seconds: float = 30, **further: Any) -> str:
        deadline = rpc.Deadline.after_seconds(seconds)
        return await self.retries.run("shop", self.attempt, deadline, **further)


@pytest.mark.parametrize("code", [code for code in C if code not in {C.OK, C.UNAVAILABLE}])
async def test_only_unavailable_is_tried_again(clock: Any, code: grpc.StatusCode) -> None:
    tried = Tried(clock, failure(code))
    with pytest.raises(grpc.aio.AioRpcError):
        await tried.run()
    assert tried.count == 1


async def test_pauses_double_up_to_the_longest(clock: Any) -> None:
    tried = Tried(clock, failure(), attempts=7)
    with pytest.raises(grpc.aio.AioRpcError):
        await tried.run()
    assert tried.pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0]
    assert tried.count == 7


async def test_pauses_are_drawn_from_nothing_up(clock: Any) -> None:
    tried = Tried(clock, failure(), failure(), "well")
    tried.spread = 0.0
    assert await tried.run() == "answer 3"
    assert tried.pauses == [0, 0]
    assert tried.events == ["retry", "retry"]


@pytest.mark.parametrize(
    ("failed", "pauses"),
    [
        (told(rpc.Unavailable(retry_after=timedelta(seconds=3))), [3.0]),
        (failure(C.UNAVAILABLE, ("grpc-retry-pushback-ms", "700")), [0.7]),
        (failure(C.UNAVAILABLE, ("grpc-retry-pushback-ms", "0")), [0.0]),
        (failure(C.UNAVAILABLE, ("grpc-retry-pushback-ms", "-1")), None),
        (failure(C.UNAVAILABLE, ("grpc-retry-pushback-ms", "soon")), None),
        (told(rpc.Unavailable(retry_after=timedelta(seconds=60))), None),
        (failure(C.UNAVAILABLE, ("grpc-retry-pushback-ms", "60000")), None),
    ],
)
async def test_what_the_agent_says_of_the_next_attempt_is_kept(
    clock: Any, failed: Exception, pauses: list[float] | None
) -> None:
    tried = Tried(clock, failed, "well")
    tried.spread = 0.0
    if pauses is None:
        with pytest.raises(grpc.aio.AioRpcError):
            await tried.run()
    else:
        await tried.run()
    assert tried.pauses == (pauses or [])


async def test_nobody_waits_beyond_the_deadline(clock: Any) -> None:
    tried = Tried(clock, failure())
    with pytest.raises(grpc.aio.AioRpcError):
        await tried.run(0.04)
    assert tried.count == 1


async def test_nobody_tries_an_agent_that_was_given_up(clock: Any) -> None:
    tried = Tried(clock, failure())
    with pytest.raises(grpc.aio.AioRpcError):
        await tried.run(given_up=lambda: True)
    assert tried.count == 1


@pytest.mark.parametrize(
    ("calls", "spare", "second"), [(1000, 0, 100), (1000, 10, 100), (20, 10, 10)]
)
async def test_a_tenth_of_the_calls_is_tried_again(
    clock: Any, calls: int, spare: int, second: int
) -> None:
    tried = Tried(clock, failure(), attempts=2, spare=spare)
    tried.spread = 0.0
    for _ in range(calls):
        with pytest.raises(grpc.aio.AioRpcError):
            await tried.run()
    assert abs(tried.count - calls - second) <= 1
    assert "exhausted" in tried.events
    clock.advance(11)
    tried.outcomes = ["well"]
    for _ in range(30):
        await tried.run()
    tried.outcomes = [failure(), "well"]
    assert await tried.run()


async def test_the_first_answer_of_two_counts(clock: Any) -> None:
    tried = Tried(clock, 5.0, "well")
    assert await tried.run(hedge_after=0.01) == "answer 2"
    assert tried.events == ["hedge"]


async def test_a_quick_answer_is_asked_for_once(clock: Any) -> None:
    tried = Tried(clock, "well")
    assert await tried.run(hedge_after=1.0) == "answer 1"
    assert tried.events == []


@pytest.mark.parametrize(
    ("first", "second", "ends"),
    [
        (0.1, failure(), "answer 2"),  # the count when it was asked
        (0.1, failure(C.NOT_FOUND), C.NOT_FOUND),
        (5.0, failure(C.INTERNAL), C.INTERNAL),
    ],
)
async def test_of_two_attempts_a_lack_of_an_answer_is_waited_out(
    clock: Any, first: float, second: Exception, ends: Any
) -> None:
    tried = Tried(clock, first, second)
    try:
        found: Any = await tried.run(hedge_after=0.01)
    except grpc.aio.AioRpcError as failed:
        found = failed.code()
    assert found == ends


async def test_hedging_spends_the_budget(clock: Any) -> None:
    tried = Tried(clock, 0.03, spare=0, budget=0.0)
    assert await tried.run(hedge_after=0.001) == "answer 1"
    assert tried.events == ["exhausted"]


async def test_a_caller_that_hangs_up_ends_both_attempts(clock: Any) -> None:
    tried = Tried(clock, 60.0)
    before = asyncio.all_tasks()
    asking = asyncio.create_task(tried.run(hedge_after=0.001))
    await wait_until(lambda: tried.count == 2)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert not asyncio.all_tasks() - before


@pytest.mark.parametrize(
    "wrong", [{"attempts": 0}, {"budget": 1.5}, {"spare": -1}, {"base": timedelta(0)}]
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        RetrySettings(**wrong)
