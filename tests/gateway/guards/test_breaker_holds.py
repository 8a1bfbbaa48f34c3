"""Circuits that an operator holds: the state machine, and how gateways follow."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest
import pytest_asyncio

from weft.gateway.guards import Breakers, BreakerSettings, CircuitOpen, Transition
from weft.gateway.guards.breaker_holds import BreakerHolds
from weft.postgres import Database
from weft.rpc.testing import wait_until

C = grpc.StatusCode
KEY = ("shop", "/shop.v1.Shop/Buy")


class Watched:
    """Breakers that open after two failures, for a second."""

    def __init__(self, clock: Any) -> None:
        self.moves: list[Transition] = []
        self.breakers = Breakers(
            BreakerSettings(minimum_calls=2, open_for=timedelta(seconds=1), jitter=0, trials=1),
            on_transition=self.moves.append,
            clock=clock,
        )

    def call(self, code: grpc.StatusCode = C.OK) -> bool:
        try:
            self.breakers.enter(*KEY).done(code)
        except CircuitOpen:
            return False
        return True

    @property
    def state(self) -> Any:
        (one,) = self.breakers.snapshot()
        return one


@pytest.fixture
def watched(clock: Any) -> Watched:
    return Watched(clock)


def test_held_open_refuses_until_it_is_let_go(watched: Watched, clock: Any) -> None:
    assert watched.call()
    watched.breakers.hold({KEY: "open"})
    clock.advance(1_000_000)
    with pytest.raises(CircuitOpen) as refused:
        watched.breakers.enter(*KEY)
    assert refused.value.metadata["held"] == "true"
    assert refused.value.retry_after == timedelta(seconds=5)
    assert (watched.state.state, watched.state.held) == ("open", True)
    watched.breakers.hold({})
    assert watched.call()
    assert (watched.state.state, watched.state.held) == ("closed", False)


def test_held_closed_never_opens_and_still_counts(watched: Watched) -> None:
    watched.breakers.hold({KEY: "closed"})
    assert all(watched.call(C.UNAVAILABLE) for _ in range(20))
    assert (watched.state.state, watched.state.failures) == ("closed", 20)
    watched.breakers.hold({})
    assert watched.call(C.UNAVAILABLE)
    assert not watched.call()


def test_an_open_circuit_can_be_held_closed(watched: Watched) -> None:
    while watched.call(C.UNAVAILABLE):
        pass
    watched.breakers.hold({KEY: "closed"})
    assert watched.call(C.UNAVAILABLE)
    assert watched.call(C.UNAVAILABLE)


@pytest.mark.parametrize("first", ["open", "closed"])
@pytest.mark.parametrize("second", ["open", "closed"])
def test_a_hold_can_be_changed(watched: Watched, first: str, second: str) -> None:
    watched.breakers.hold({KEY: first})
    watched.breakers.hold({KEY: second})
    assert watched.call() == (second == "closed")
    assert watched.state.state == second


def test_a_trial_under_way_does_not_undo_a_hold(watched: Watched, clock: Any) -> None:
    while watched.call(C.UNAVAILABLE):
        pass
    clock.advance(2)
    trial = watched.breakers.enter(*KEY)
    watched.breakers.hold({KEY: "open"})
    trial.done(C.OK)
    assert watched.state.state == "open"
    assert not watched.call()


def test_a_circuit_that_was_never_used_can_be_held(watched: Watched) -> None:
    watched.breakers.hold({KEY: "open"})
    assert watched.state.held
    assert not watched.call()


def test_the_last_changes_are_kept(watched: Watched, clock: Any) -> None:
    for _ in range(10):
        while watched.call(C.UNAVAILABLE):
            pass
        clock.advance(2)
        assert watched.call()
    history = watched.state.history
    assert len(history) == 16
    assert [one.state for one in history[-3:]] == ["open", "half-open", "closed"]
    assert history[-1] is watched.moves[-1]
    assert history[0].at <= history[-1].at


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with await Database.connect(database_url, schema="gateway") as found:
        await found.migrate("weft.gateway.sql")
        yield found


async def test_all_gateways_follow_within_a_second(database: Database) -> None:
    heard: list[Any] = [{}, {}]
    holds = [
        BreakerHolds(database, lambda found, at=at: heard.__setitem__(at, dict(found)))
        for at in range(2)
    ]
    following = [asyncio.create_task(one.run()) for one in holds]
    limit = timedelta(seconds=1)
    await holds[0].hold(*KEY, "open", "ann")
    assert heard[0] == {KEY: "open"}
    await wait_until(lambda: heard[1] == {KEY: "open"}, timeout=limit)
    assert holds[1].known[KEY].by == "ann"
    await holds[1].hold(*KEY, "closed", "bob")
    await wait_until(lambda: heard[0] == {KEY: "closed"}, timeout=limit)
    await holds[0].release(*KEY, "ann")
    await wait_until(lambda: heard == [{}, {}], timeout=limit)
    for task in following:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
