from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import grpc
import pytest

from weft import rpc
from weft.gateway.guards import Breakers, BreakerSettings, CircuitOpen
from weft.rpc.testing import channel_for
from weft.support.v1 import triage_pb2, triage_pb2_grpc

C = grpc.StatusCode
AGENT, METHOD = "support-triage", "/weft.support.v1.TriageService/Classify"


@pytest.fixture
def moves():
    return []


@pytest.fixture
def breakers(clock, moves):
    return Breakers(on_transition=moves.append, clock=clock, spread=lambda: 0.5)


def call(breakers, code, deadline=None, times=1):
    for _ in range(times):
        breakers.enter(AGENT, METHOD, deadline).done(code)


def is_open(breakers):
    try:
        breakers.enter(AGENT, METHOD).cancelled()
    except CircuitOpen:
        return True
    return False


def trip(breakers):
    call(breakers, C.UNAVAILABLE, times=20)
    assert is_open(breakers)


def state(breakers):
    (only,) = breakers.snapshot()
    return only.state


# When it opens


def test_half_of_twenty_failing_opens_it_whatever_the_order(breakers):
    for _ in range(9):
        call(breakers, C.UNAVAILABLE)
        call(breakers, C.OK)
    assert not is_open(breakers)
    call(breakers, C.UNAVAILABLE)
    assert not is_open(breakers)  # 10 of 19: too few calls to judge
    call(breakers, C.OK)
    assert is_open(breakers)


def test_a_rate_below_the_limit_never_opens_it(breakers):
    for _ in range(200):
        call(breakers, C.OK, times=2)
        call(breakers, C.UNAVAILABLE)
    assert not is_open(breakers)


def test_failures_older_than_the_window_are_forgotten(breakers, clock):
    call(breakers, C.INTERNAL, times=19)
    clock.advance(10)
    call(breakers, C.INTERNAL)
    assert not is_open(breakers)


@pytest.mark.parametrize(
    "code", [C.UNAVAILABLE, C.INTERNAL, C.UNKNOWN, C.DATA_LOSS, C.DEADLINE_EXCEEDED]
)
def test_faults_of_the_agent_count(breakers, code):
    call(breakers, code, times=20)
    assert is_open(breakers)


@pytest.mark.parametrize(
    "code",
    [
        C.INVALID_ARGUMENT,
        C.NOT_FOUND,
        C.ALREADY_EXISTS,
        C.PERMISSION_DENIED,
        C.UNAUTHENTICATED,
        C.RESOURCE_EXHAUSTED,
        C.FAILED_PRECONDITION,
        C.ABORTED,
        C.OUT_OF_RANGE,
        C.UNIMPLEMENTED,
    ],
)
def test_answers_count_as_success(breakers, code):
    call(breakers, code, times=100)
    (only,) = breakers.snapshot()
    assert (only.state, only.calls, only.failures) == ("closed", 100, 0)


def test_a_callers_own_short_deadline_is_no_vote(breakers):
    short = rpc.Deadline.after(timedelta(milliseconds=50))
    call(breakers, C.DEADLINE_EXCEEDED, short, times=100)
    (only,) = breakers.snapshot()
    assert only.calls == 0
    long = rpc.Deadline.after(timedelta(seconds=30))
    call(breakers, C.DEADLINE_EXCEEDED, long, times=20)
    assert is_open(breakers)


def test_a_cancelled_caller_is_no_vote(breakers):
    for _ in range(100):
        breakers.enter(AGENT, METHOD).cancelled()
    call(breakers, C.CANCELLED, times=100)
    (only,) = breakers.snapshot()
    assert (only.state, only.calls) == ("closed", 0)


def test_only_the_first_outcome_of_a_permit_counts(breakers):
    permit = breakers.enter(AGENT, METHOD)
    permit.done(C.OK)
    for _ in range(100):
        permit.done(C.UNAVAILABLE)
        permit.cancelled()
    (only,) = breakers.snapshot()
    assert (only.calls, only.failures) == (1, 0)


def test_methods_and_agents_fail_alone(breakers):
    trip(breakers)
    breakers.enter(AGENT, "/other/Method").done(C.OK)
    breakers.enter("support-quality", METHOD).done(C.OK)


# While it is open


def test_a_refusal_says_when_to_come_back(breakers, clock):
    trip(breakers)
    clock.advance(2)
    with pytest.raises(rpc.Unavailable) as refused:
        breakers.enter(AGENT, METHOD)
    assert refused.value.reason == "CIRCUIT_OPEN"
    assert refused.value.retry_after == timedelta(seconds=3)
    assert refused.value.metadata == {"agent": AGENT, "method": METHOD}


@pytest.mark.parametrize(("spread", "seconds"), [(0.0, 4), (0.5, 5), (0.99, 5.98)])
def test_open_time_is_jittered_by_a_fifth(clock, spread, seconds):
    breakers = Breakers(clock=clock, spread=lambda: spread)
    trip(breakers)
    (only,) = breakers.snapshot()
    assert only.retry_after == timedelta(seconds=seconds)


def test_results_of_calls_begun_before_it_opened_are_void(breakers, clock):
    early = [breakers.enter(AGENT, METHOD) for _ in range(4)]
    trip(breakers)
    clock.advance(4)
    early[0].done(C.UNAVAILABLE)  # must not prolong the open time
    early[1].done(C.OK)
    clock.advance(1)
    trial = breakers.enter(AGENT, METHOD)
    early[2].done(C.OK)  # must not close it
    early[3].done(C.UNAVAILABLE)  # must not open it again
    assert state(breakers) == "half-open"
    trial.done(C.OK)
    call(breakers, C.OK, times=2)
    assert state(breakers) == "closed"


# When it closes again


def test_three_trials_in_all_pass_and_all_must_succeed(breakers, clock):
    trip(breakers)
    clock.advance(5)
    trials = [breakers.enter(AGENT, METHOD) for _ in range(3)]
    assert is_open(breakers)
    trials[0].done(C.OK)
    trials[1].done(C.NOT_FOUND)
    assert is_open(breakers)  # a success does not make room for a fourth
    trials[2].done(C.OK)
    assert state(breakers) == "closed"


def test_callers_refused_by_running_trials_are_told_a_second(breakers, clock):
    trip(breakers)
    clock.advance(5)
    for _ in range(3):
        breakers.enter(AGENT, METHOD)
    with pytest.raises(CircuitOpen) as refused:
        breakers.enter(AGENT, METHOD)
    assert refused.value.retry_after == timedelta(seconds=1)


def test_one_failed_trial_opens_it_for_the_full_time(breakers, clock):
    trip(breakers)
    clock.advance(5)
    trials = [breakers.enter(AGENT, METHOD) for _ in range(3)]
    trials[0].done(C.OK)
    trials[1].done(C.UNAVAILABLE)
    trials[2].done(C.OK)  # too late
    assert state(breakers) == "open"
    clock.advance(4.9)
    assert is_open(breakers)
    clock.advance(0.1)
    assert not is_open(breakers)


def test_a_cancelled_trial_gives_its_permit_back_and_is_no_success(breakers, clock):
    trip(breakers)
    clock.advance(5)
    for _ in range(50):
        breakers.enter(AGENT, METHOD).cancelled()
    short = rpc.Deadline.after(timedelta(milliseconds=1))
    call(breakers, C.DEADLINE_EXCEEDED, short, times=50)
    assert state(breakers) == "half-open"
    call(breakers, C.OK, times=3)
    assert state(breakers) == "closed"


def test_trials_that_never_report_do_not_lock_it(breakers, clock):
    trip(breakers)
    clock.advance(5)
    lost = [breakers.enter(AGENT, METHOD) for _ in range(3)]
    clock.advance(9.9)
    assert is_open(breakers)
    clock.advance(0.1)
    trials = [breakers.enter(AGENT, METHOD) for _ in range(3)]
    for permit in lost:
        permit.done(C.UNAVAILABLE)  # of the round before: void
    for permit in trials:
        permit.done(C.OK)
    assert state(breakers) == "closed"


def test_a_closed_again_circuit_begins_with_an_empty_window(breakers, clock):
    trip(breakers)
    clock.advance(5)
    call(breakers, C.OK, times=3)
    call(breakers, C.UNAVAILABLE, times=19)
    assert state(breakers) == "closed"
    call(breakers, C.UNAVAILABLE)
    assert state(breakers) == "open"


# Beside the path


def test_transitions_are_told_and_logged(breakers, moves, clock, caplog):
    with caplog.at_level(logging.INFO, logger="weft.gateway"):
        trip(breakers)
        clock.advance(5)
        call(breakers, C.OK, times=3)
    assert [(m.previous, m.state) for m in moves] == [
        ("closed", "open"),
        ("open", "half-open"),
        ("half-open", "closed"),
    ]
    assert (moves[0].agent, moves[0].method) == (AGENT, METHOD)
    assert (moves[0].calls, moves[0].failures, moves[0].open_for.total_seconds()) == (20, 20, 5)
    assert [r.getMessage() for r in caplog.records] == [
        "circuit open",
        "circuit half-open",
        "circuit closed",
    ]
    assert caplog.records[0].levelno == logging.WARNING
    assert caplog.records[0].agent == AGENT


def test_breakers_are_bounded_and_open_ones_are_kept(clock):
    breakers = Breakers(BreakerSettings(capacity=10), clock=clock)
    trip(breakers)
    for number in range(1_000):
        breakers.enter(f"agent-{number}", METHOD).done(C.OK)
    snapshot = breakers.snapshot()
    assert len(snapshot) == 10
    assert [s.agent for s in snapshot if s.state == "open"] == [AGENT]
    assert snapshot[-1].agent == "agent-999"


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": timedelta(0)},
        {"failure_rate": 0.0},
        {"failure_rate": 1.1},
        {"jitter": 1.0},
        {"trials": 0},
        {"minimum_calls": 0},
        {"deadline_floor": timedelta(seconds=-1)},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        BreakerSettings(**wrong)


# As a context manager


def test_the_block_form_reads_the_outcome(breakers):
    outcomes = [
        (rpc.NotFound("x"), 0),
        (rpc.Unavailable("x"), 1),
        (TimeoutError(), 1),
        (grpc.aio.AioRpcError(C.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata()), 1),
    ]
    for raised, _ in outcomes:
        with pytest.raises(type(raised)), breakers.enter(AGENT, METHOD):
            raise raised
    with breakers.enter(AGENT, METHOD):
        pass
    for no_vote in (asyncio.CancelledError(), KeyError("a bug of ours")):
        with pytest.raises(type(no_vote)), breakers.enter(AGENT, METHOD):
            raise no_vote
    (only,) = breakers.snapshot()
    assert (only.calls, only.failures) == (5, 3)


# With a real agent


class Failing(triage_pb2_grpc.TriageServiceServicer):
    def __init__(self):
        self.served = 0
        self.well = False

    async def Classify(self, request, context):
        self.served += 1
        if not self.well:
            raise rpc.Unavailable("no model")
        return triage_pb2.ClassifyResponse()


async def test_async_calls_trip_it_and_a_recovered_agent_closes_it(breakers, clock):
    agent = Failing()
    async with channel_for(triage_pb2_grpc.add_TriageServiceServicer_to_server, agent) as channel:
        stub = triage_pb2_grpc.TriageServiceStub(channel)

        async def guarded():
            with breakers.enter(AGENT, METHOD):
                await stub.Classify(triage_pb2.ClassifyRequest(text="hello"))

        failed = await asyncio.gather(*(guarded() for _ in range(20)), return_exceptions=True)
        assert all(isinstance(f, grpc.aio.AioRpcError) for f in failed)
        refused = await asyncio.gather(*(guarded() for _ in range(20)), return_exceptions=True)
        assert all(isinstance(f, CircuitOpen) for f in refused)
        assert agent.served == 20

        agent.well = True
        clock.advance(5)
        passed = await asyncio.gather(*(guarded() for _ in range(20)), return_exceptions=True)
        assert passed.count(None) == 3
        assert agent.served == 23
        await guarded()


async def test_a_cancelled_call_stays_cancelled_and_is_no_vote(breakers):
    reached = asyncio.Event()

    async def hang():
        with breakers.enter(AGENT, METHOD):
            reached.set()
            await asyncio.Event().wait()

    for _ in range(30):
        reached.clear()
        task = asyncio.create_task(hang())
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    (only,) = breakers.snapshot()
    assert (only.state, only.calls) == ("closed", 0)
