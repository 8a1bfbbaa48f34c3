"""What must hold before a tool runs, and what is told and recorded of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.tools.callers import VERIFIER, changed, expired, serving, signed

from weft import embedded, rpc
from weft.agents.tools import (
    DatabaseAudit,
    Keeping,
    MemoryAudit,
    MemoryShelf,
    Rate,
    RedisShelf,
    Tool,
    Toolbox,
    ToolLimited,
    ToolUnknown,
    current_use,
    recording,
    tool,
)
from weft.limits import SharedLimits
from weft.rpc.scopes import ScopeMissing
from weft.rpc.testing import wait_until
from weft.telemetry import Instruments, Telemetry
from weft.tools.v1.calculator_pb2 import CalculateRequest, CalculateResponse
from weft.tools.v1.search_pb2 import WebSearchRequest

MINUTE = timedelta(minutes=1)
ANN = signed("user:ann", "tools.say", tenant="acme")
BOB = signed("user:bob", "tools.say", tenant="acme")


class Said:
    """Counts what it is told, and does something while it does."""

    def __init__(self, does: Callable[[], Awaitable[object]] | None = None) -> None:
        self.heard: list[str] = []
        self.keys: list[str] = []
        self._does = does

    async def __call__(self, request: CalculateRequest) -> CalculateResponse:
        self.heard.append(request.expression)
        use = current_use()
        assert use is not None
        self.keys.append(use.key)
        if self._does is not None:
            await self._does()
        return CalculateResponse(value=f"{request.expression} {len(self.heard)}")


def saying(run: Any, **further: Any) -> Tool:
    values: dict[str, Any] = {"name": "say", "description": "Says it.", "effects": False, **further}
    return Tool(request=CalculateRequest, response=CalculateResponse, run=run, **values)


async def ask(toolbox: Toolbox, text: str = "hello", name: str = "say", **further: Any) -> str:
    request = CalculateRequest(expression=text)
    return (await toolbox.use(name, request, CalculateResponse, **further)).value


# Permission


@pytest.mark.parametrize(
    "identity",
    [
        None,
        signed("user:eve"),
        signed("user:eve", "tools.sa", "tools.say.more", "TOOLS.SAY", "tools.*"),
        expired("user:eve", "tools.say"),
        changed("user:eve", "tools.say"),
    ],
)
async def test_without_the_scope_nothing_runs(identity) -> None:
    audit, run = MemoryAudit(), Said()
    async with Toolbox([saying(run)], audit=audit, verifier=VERIFIER) as toolbox:
        with pytest.raises(ScopeMissing) as refused:
            await serving(identity, lambda: ask(toolbox))
        assert await serving(identity, _offers(toolbox)) == []
    assert not run.heard
    assert refused.value.metadata["missing_scopes"] == "tools.say"
    assert refused.value.metadata["tool"] == "say"
    ((use, outcome),) = audit.uses
    assert (outcome.code, outcome.reason, use.arguments) == (
        "PERMISSION_DENIED",
        "SCOPE_MISSING",
        None,
    )


def _offers(toolbox: Toolbox) -> Any:
    async def names() -> list[str]:
        return [each.name for each in toolbox]

    return names


async def test_with_it_everything_is_as_it_should_be() -> None:
    run = Said()
    async with Toolbox([saying(run)], audit=MemoryAudit(), verifier=VERIFIER) as toolbox:
        assert await serving(ANN, lambda: ask(toolbox)) == "hello 1"
        assert await serving(ANN, _offers(toolbox)) == ["say"]
        everything = signed("user:root", all_scopes=True)
        assert await serving(everything, lambda: ask(toolbox)) == "hello 2"


async def test_outside_of_a_call_nobody_acts_but_whom_the_agent_names() -> None:
    run = Said()
    async with Toolbox([saying(run)], audit=MemoryAudit()) as toolbox:
        with pytest.raises(ScopeMissing):
            await ask(toolbox)
    async with Toolbox([saying(run)], audit=MemoryAudit(), identity=ANN) as toolbox:
        assert await ask(toolbox) == "hello 1"
        with pytest.raises(ScopeMissing):  # a call that names nobody is not the agent's own
            await serving(None, lambda: ask(toolbox))


async def test_a_tool_may_be_for_everybody_and_says_so() -> None:
    async with Toolbox([saying(Said(), scopes=())], audit=MemoryAudit()) as toolbox:
        assert await serving(None, lambda: ask(toolbox)) == "hello 1"


async def test_an_offer_asks_again_in_whose_hands_it_is() -> None:
    run = Said()
    async with Toolbox([saying(run)], audit=MemoryAudit(), verifier=VERIFIER) as toolbox:

        async def offer() -> Any:
            return toolbox.offered()[0]

        given = await serving(ANN, offer)
        told = await serving(signed("user:eve"), lambda: given({"expression": "1"}))
    assert told.is_error
    assert told.text == "PERMISSION_DENIED: The caller may not do this."
    assert not run.heard


async def test_an_identity_that_expires_during_a_call_may_do_nothing_new() -> None:
    run = Said()
    async with Toolbox([saying(run)], audit=MemoryAudit()) as toolbox:
        with pytest.raises(ScopeMissing):
            await serving(expired("user:ann", "tools.say"), lambda: ask(toolbox))
    assert not run.heard


# Time


async def test_a_tool_has_its_time_and_never_more_than_the_call() -> None:
    hangs = Said(asyncio.Event().wait)
    short = saying(hangs, timeout=timedelta(milliseconds=50))
    long = saying(hangs, name="long", scopes=("tools.say",), timeout=timedelta(hours=1))
    audit = MemoryAudit()
    async with Toolbox([short, long], audit=audit) as toolbox:
        with pytest.raises(rpc.DeadlineExceeded):
            await serving(ANN, lambda: ask(toolbox))
        with pytest.raises(rpc.DeadlineExceeded):
            await serving(ANN, lambda: ask(toolbox, name="long"), seconds=0.05)
        with pytest.raises(rpc.DeadlineExceeded):
            await serving(ANN, lambda: ask(toolbox, name="long"), seconds=0.0)
    assert len(hangs.heard) == 2  # the third call had no time left: nothing ran
    assert [outcome.code for _, outcome in audit.uses] == ["DEADLINE_EXCEEDED"] * 3


async def test_a_tool_sees_what_is_left() -> None:
    left: list[float] = []

    async def look() -> None:
        deadline = rpc.Deadline.current()
        assert deadline is not None
        left.append(deadline.seconds())

    async with Toolbox([saying(Said(look), timeout=MINUTE)], audit=MemoryAudit()) as toolbox:
        await serving(ANN, lambda: ask(toolbox))
        await serving(ANN, lambda: ask(toolbox), seconds=5)
    assert 55 < left[0] <= 60
    assert 0 < left[1] <= 5


async def test_a_tool_that_will_not_be_cancelled_is_not_waited_for() -> None:
    may_end = asyncio.Event()

    async def stubborn() -> None:
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                continue

    async with Toolbox(
        [saying(Said(stubborn), timeout=timedelta(milliseconds=20))], audit=MemoryAudit()
    ) as toolbox:
        with pytest.raises(rpc.DeadlineExceeded):
            await asyncio.wait_for(serving(ANN, lambda: ask(toolbox)), 5)
        closed, _ = await asyncio.wait({asyncio.create_task(toolbox.close())}, timeout=5)
        may_end.set()
        assert closed


async def test_a_caller_that_hangs_up_ends_the_tool_and_it_is_recorded(
    audit: DatabaseAudit,
) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with Toolbox([saying(Said(work))], audit=audit) as toolbox:
        task = asyncio.create_task(serving(ANN, lambda: ask(toolbox), conversation="c"))
        await began.wait()
        ((use, outcome),) = await audit.find("acme", "c")
        assert outcome.code == "RUNNING"  # before it is done
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(ended.wait(), 5)

        async def recorded() -> bool:
            return (await audit.find("acme", "c"))[0][1].code == "CANCELLED"

        await wait_until(recorded)
    assert use.arguments == {"expression": "hello"}


@pytest.mark.parametrize("late", [False, True])
async def test_a_caller_that_hangs_up_while_its_use_is_recorded_leaves_none_running(
    late, audit: DatabaseAudit
) -> None:
    began, may_go_on = asyncio.Event(), asyncio.Event()

    class Slow(DatabaseAudit):
        async def begin(self, use: Any) -> None:
            if not late:
                await super().begin(use)
            began.set()
            await may_go_on.wait()
            if late:
                await super().begin(use)

    run = Said()
    async with Toolbox([saying(run)], audit=Slow(audit._database)) as toolbox:
        task = asyncio.create_task(serving(ANN, lambda: ask(toolbox), conversation="c"))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        may_go_on.set()
    ((_, outcome),) = await audit.find("acme", "c")
    assert outcome.code == "CANCELLED"
    assert not run.heard


# Rates


@pytest.mark.parametrize("shared", [False, True])
async def test_each_identity_has_its_rate(shared, redis_url: str) -> None:
    rated = saying(Said(), rate=Rate(per_second=0.01, burst=2))
    limits = SharedLimits(redis_url) if shared else None
    async with (
        Toolbox([rated], audit=MemoryAudit(), limits=limits) as one,
        Toolbox([rated], audit=MemoryAudit(), limits=limits) as other,
    ):
        await serving(ANN, lambda: ask(one))
        await serving(ANN, lambda: ask(other))
        if shared:
            with pytest.raises(ToolLimited) as refused:
                await serving(ANN, lambda: ask(one))
            assert (
                timedelta(seconds=90)
                < (refused.value.retry_after or timedelta())
                <= timedelta(seconds=100)
            )
            (failure,) = [
                each
                for each in refused.value.details
                if isinstance(each, error_details_pb2.QuotaFailure)
            ]
            assert failure.violations[0].subject == "say"
        else:
            await serving(ANN, lambda: ask(one))
            with pytest.raises(ToolLimited):
                await serving(ANN, lambda: ask(one))
        assert await serving(BOB, lambda: ask(one))
        same_name = signed("user:ann", "tools.say", tenant="other")
        assert await serving(same_name, lambda: ask(one))
    if limits is not None:
        await limits.close()


async def test_without_redis_a_process_counts_alone() -> None:
    limits = SharedLimits("redis://127.0.0.1:1")
    rated = saying(Said(), rate=Rate(per_second=0.01))
    async with Toolbox([rated], audit=MemoryAudit(), limits=limits) as toolbox:
        await serving(ANN, lambda: ask(toolbox))
        with pytest.raises(ToolLimited):
            await serving(ANN, lambda: ask(toolbox))
    await limits.close()


# What is kept


@pytest.fixture(params=["memory", "redis"])
async def shelf(request: pytest.FixtureRequest, redis_url: str) -> Any:
    if request.param == "memory":
        yield MemoryShelf()
        return
    async with embedded.redis_client(redis_url) as client:
        yield RedisShelf(client)


@pytest.mark.parametrize(
    ("audience", "expected"),
    [
        ("identity", ["hello 1", "hello 1", "hello 2", "hello 3", "hello 4"]),
        ("tenant", ["hello 1", "hello 1", "hello 1", "hello 1", "hello 2"]),
        ("everybody", ["hello 1"] * 5),
    ],
)
async def test_results_are_kept_for_those_whom_they_are_for(audience, expected, shelf) -> None:
    kept = saying(Said(), keeping=Keeping(ttl=MINUTE, audience=audience))
    more = signed("user:ann", "tools.say", "admin", tenant="acme")
    away = signed("user:ann", "tools.say", tenant="other")
    async with Toolbox([kept], audit=MemoryAudit(), shelf=shelf) as toolbox:
        callers = (ANN, ANN, BOB, more, away)
        found = [await serving(each, lambda: ask(toolbox)) for each in callers]
        assert await serving(ANN, lambda: ask(toolbox, "other")) not in found
    assert found == expected


async def test_what_was_kept_is_for_nobody_without_the_scope(shelf) -> None:
    kept = saying(Said(), keeping=Keeping(ttl=MINUTE, audience="everybody"))
    async with Toolbox([kept], audit=MemoryAudit(), shelf=shelf) as toolbox:
        await serving(ANN, lambda: ask(toolbox))
        with pytest.raises(ScopeMissing):
            await serving(signed("user:eve"), lambda: ask(toolbox))


async def test_what_other_tools_found_is_for_nobody_who_may_not_use_those(shelf) -> None:
    secret = saying(Said(), name="secret", scopes=("secret.read",), keeping=Keeping(ttl=MINUTE))

    async def outer() -> None:
        await ask(toolbox, name="secret")

    middle = saying(
        Said(outer), name="middle", scopes=(), keeping=Keeping(ttl=MINUTE, audience="everybody")
    )

    async def outermost() -> None:
        await ask(toolbox, name="middle")

    door = saying(
        Said(outermost), name="door", scopes=(), keeping=Keeping(ttl=MINUTE, audience="everybody")
    )
    async with Toolbox([secret, middle, door], audit=MemoryAudit(), shelf=shelf) as toolbox:
        knows = signed("user:ann", "secret.read")
        assert await serving(knows, lambda: ask(toolbox, name="middle")) == "hello 1"
        assert await serving(knows, lambda: ask(toolbox, name="door")) == "hello 1"
        for name in ("middle", "door"):
            with pytest.raises(ScopeMissing):
                await serving(signed("user:eve"), lambda name=name: ask(toolbox, name=name))


async def test_results_are_kept_for_their_time_and_as_far_as_there_is_room() -> None:
    now = 0.0
    shelf = MemoryShelf(most_bytes=8_000, clock=lambda: now)
    run = Said()
    kept = saying(run, keeping=Keeping(ttl=MINUTE))
    async with Toolbox([kept], audit=MemoryAudit(), shelf=shelf) as toolbox:
        await serving(ANN, lambda: ask(toolbox))
        now = 59.9
        await serving(ANN, lambda: ask(toolbox))
        assert len(run.heard) == 1
        now = 60.0
        await serving(ANN, lambda: ask(toolbox))
        assert len(run.heard) == 2
        for number in range(50):
            await serving(ANN, lambda number=number: ask(toolbox, str(number)))
        assert shelf._size <= 8_000
        await serving(ANN, lambda: ask(toolbox, "49"))
        assert len(run.heard) == 52
        await serving(ANN, lambda: ask(toolbox, "x" * 2_000))  # too large for any
        await serving(ANN, lambda: ask(toolbox, "x" * 2_000))
        assert len(run.heard) == 54


async def test_a_redis_that_is_away_costs_results_and_nothing_else() -> None:
    async with embedded.redis_client("redis://127.0.0.1:1") as client:
        kept = saying(Said(), keeping=Keeping(ttl=MINUTE))
        async with Toolbox([kept], audit=MemoryAudit(), shelf=RedisShelf(client)) as toolbox:
            assert await serving(ANN, lambda: ask(toolbox)) == "hello 1"
            assert await serving(ANN, lambda: ask(toolbox)) == "hello 2"


async def test_a_redis_that_hangs_is_not_waited_for() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with embedded.redis_client(f"redis://127.0.0.1:{port}") as client:
            kept = saying(Said(), keeping=Keeping(ttl=MINUTE))
            async with Toolbox([kept], audit=MemoryAudit(), shelf=RedisShelf(client)) as toolbox:
                assert await asyncio.wait_for(serving(ANN, lambda: ask(toolbox)), 10) == "hello 1"


async def test_failures_are_not_kept() -> None:
    fails = iter((True, False))

    async def at_first() -> None:
        if next(fails):
            raise rpc.Unavailable

    run = Said(at_first)
    async with Toolbox([saying(run, keeping=Keeping(ttl=MINUTE))], audit=MemoryAudit()) as toolbox:
        with pytest.raises(rpc.Unavailable):
            await serving(ANN, lambda: ask(toolbox))
        assert await serving(ANN, lambda: ask(toolbox)) == "hello 2"


# Errors


SECRET = "postgresql://root:hunter2@10.1.2.3/prod"


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (ValueError(SECRET), "INTERNAL", "INTERNAL: It failed."),
        (OSError(SECRET), "INTERNAL", "INTERNAL: It failed."),
        (rpc.Internal(SECRET), "INTERNAL", "INTERNAL: It failed."),
        (rpc.Unknown(SECRET), "UNKNOWN", "UNKNOWN: It failed."),
        (rpc.DataLoss(SECRET), "DATA_LOSS", "DATA_LOSS: It failed."),
        (rpc.Unavailable(SECRET), "UNAVAILABLE", "UNAVAILABLE: It cannot be reached now."),
        (
            rpc.Unavailable(SECRET, retry_after=timedelta(seconds=2)),
            "UNAVAILABLE",
            "UNAVAILABLE: It cannot be reached now. Try again in 2 s.",
        ),
        (
            rpc.PermissionDenied(SECRET),
            "PERMISSION_DENIED",
            "PERMISSION_DENIED: The caller may not do this.",
        ),
        (
            TimeoutError(SECRET),
            "DEADLINE_EXCEEDED",
            "DEADLINE_EXCEEDED: It did not answer in time.",
        ),
        (asyncio.CancelledError(SECRET), "CANCELLED", "CANCELLED: It was cancelled."),
        (rpc.NotFound("There is no order 7."), "NOT_FOUND", "NOT_FOUND: There is no order 7."),
        (
            rpc.InvalidArgument(field="city", message="is no city"),
            "INVALID_ARGUMENT",
            "INVALID_ARGUMENT: is no city",
        ),
    ],
)
async def test_a_model_is_told_what_helps_it_and_nothing_of_what_is_inside(
    raised, code, told, caplog
) -> None:
    async def fail() -> None:
        raise raised

    audit = MemoryAudit()
    async with Toolbox([saying(Said(fail))], audit=audit) as toolbox:

        async def model() -> Any:
            return await toolbox.offered()[0]({"expression": "1"})

        result = await serving(ANN, model)
        with pytest.raises(rpc.Error) as failed:
            await serving(ANN, lambda: ask(toolbox))
    assert (result.is_error, result.text, result.json) == (True, told, None)
    assert failed.value.code.name == code
    assert failed.value.metadata["tool"] == "say"
    assert [outcome.code for _, outcome in audit.uses] == [code, code]
    if not isinstance(raised, rpc.Error | TimeoutError | asyncio.CancelledError):
        assert SECRET not in str(failed.value)
        assert SECRET in caplog.text  # the log knows


async def test_what_does_not_fit_is_told_and_does_not_run() -> None:
    run, audit = Said(), MemoryAudit()
    async with Toolbox([saying(run)], audit=audit) as toolbox:

        async def model() -> list[Any]:
            (offer,) = toolbox
            wrong: list[Any] = [{}, {"expression": 1}, {"no": "1"}, {"expression": ["1"]}]
            return [await offer(each) for each in wrong]

        told = await serving(ANN, model)
    assert all(each.is_error and each.text.startswith("INVALID_ARGUMENT: ") for each in told)
    assert not run.heard
    assert [use.arguments for use, _ in audit.uses] == [None] * 4


async def test_a_tool_that_results_in_something_else_is_broken() -> None:
    async def wrong(_: Any) -> Any:
        return WebSearchRequest()

    async with Toolbox([saying(wrong)], audit=MemoryAudit()) as toolbox:
        with pytest.raises(rpc.Internal):
            await serving(ANN, lambda: ask(toolbox))


async def test_where_nothing_is_left_a_model_is_told_nothing_more() -> None:
    async def spend() -> None:
        raise rpc.ResourceExhausted("All is spent.", reason="BUDGET_SPENT")

    hangs = saying(Said(asyncio.Event().wait), name="hangs", scopes=())
    async with Toolbox([hangs, saying(Said(spend))], audit=MemoryAudit()) as toolbox:

        async def model(number: int) -> Any:
            return await toolbox.offered()[number]({"expression": "1"})

        with pytest.raises(rpc.ResourceExhausted):
            await serving(ANN, lambda: model(1))
        with pytest.raises(rpc.DeadlineExceeded):
            await serving(ANN, lambda: model(0), seconds=0.05)


async def test_a_result_that_is_too_large_is_no_result() -> None:
    async def much(_: Any) -> CalculateResponse:
        return CalculateResponse(value="x" * 300_000)

    async with Toolbox([saying(much)], audit=MemoryAudit()) as toolbox:

        async def model() -> Any:
            return await toolbox.offered()[0]({"expression": "1"})

        told = await serving(ANN, model)
    assert told.is_error
    assert told.text.startswith("OUT_OF_RANGE: ")


async def test_a_result_that_cannot_be_shown_is_told_as_a_failure() -> None:
    async def odd(_: Any) -> any_pb2.Any:
        return any_pb2.Any(type_url="type.googleapis.com/not.known.Here", value=b"1")

    made = Tool(
        name="say", description="-", request=CalculateRequest, response=any_pb2.Any, run=odd
    )
    async with Toolbox([made], audit=MemoryAudit()) as toolbox:

        async def model() -> Any:
            return await toolbox.offered()[0]({"expression": "1"})

        told = await serving(ANN, model)
    assert (told.is_error, told.text) == (True, "INTERNAL: It failed.")


async def test_tools_that_use_each_other_for_ever_come_to_an_end() -> None:
    async def again() -> None:
        await ask(toolbox)

    run = Said(again)
    async with Toolbox([saying(run)], audit=MemoryAudit()) as toolbox:
        with pytest.raises(rpc.FailedPrecondition) as failed:
            await serving(ANN, lambda: ask(toolbox))
    assert failed.value.reason == "TOOLS_NESTED_TOO_DEEP"
    assert len(run.heard) == 8


async def test_of_what_is_not_there_it_says_so() -> None:
    async with Toolbox([saying(Said())], audit=MemoryAudit()) as toolbox:
        with pytest.raises(ToolUnknown):
            await ask(toolbox, name="nothing")
        with pytest.raises(TypeError):
            await toolbox.use("say", WebSearchRequest(), CalculateResponse)
        with pytest.raises(ValueError, match="already"):
            toolbox.add(saying(Said()))


# Idempotency keys


async def test_a_cause_that_comes_again_brings_the_same_keys() -> None:
    run = Said()

    async def twice() -> None:
        (offer,) = toolbox
        for expression in ("1", "1", "2"):
            await offer({"expression": expression})

    async with Toolbox([saying(run)], audit=MemoryAudit()) as toolbox:
        step = (("idempotency-key", "run-1/step-2"),)
        message = (
            ("weft-message-queue", "shop"),
            ("weft-message-id", "7"),
            ("weft-message-sender", "till"),
        )
        for metadata in (step, step, message, message, (), ()):
            await serving(ANN, twice, metadata=metadata)
    keys = [tuple(run.keys[begin : begin + 3]) for begin in range(0, 18, 3)]
    assert keys[0] == keys[1]
    assert keys[2] == keys[3]
    assert keys[4] != keys[5]
    assert len({key for each in keys for key in each}) == 12
    assert all(len(set(each)) == 3 for each in keys)


async def test_the_agents_own_uses_have_the_same_keys_too_and_no_other_callers() -> None:
    run = Said()

    async def work() -> None:
        for text in ("1", "1", "2"):
            await ask(toolbox, text)
        (offer,) = toolbox
        await offer({"expression": "1"})

    async with Toolbox([saying(run)], audit=MemoryAudit()) as toolbox:
        step = (("idempotency-key", "run-1/step-2"),)
        for identity, metadata in ((ANN, step), (ANN, step), (BOB, step), (ANN, ())):
            await serving(identity, work, metadata=metadata)
    assert run.keys[:4] == run.keys[4:8]
    assert len(set(run.keys)) == 12


# Records


async def test_every_use_is_recorded_with_nothing_secret(audit: DatabaseAudit, login) -> None:
    async def run(_: Any) -> CalculateResponse:
        return CalculateResponse(value="1")

    made = Tool(
        name="login", description="Logs in.", request=login, response=CalculateResponse, run=run
    )
    request = login(
        user="ann\0",
        pin="1234",
        answers=["blue", "dog"],
        card={"bank": "b", "number": "4111"},
        cards=[{"number": "4222"}],
        hidden={"bank": "4333"},
        token=b"12345",
    )
    request.free.update({"a": [1, "x" * 5_000, None], "nul": "\0"})
    ann = signed("user:ann", "tools.login", tenant="acme")
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    metadata = (("traceparent", traceparent), ("idempotency-key", "run-1/step-2"))
    async with Toolbox([made], audit=audit) as toolbox:
        await serving(
            ann,
            lambda: toolbox.use("login", request, CalculateResponse),
            conversation="c1",
            metadata=metadata,
        )
    ((use, outcome),) = await audit.find("acme", "c1")
    assert (use.tool, use.subject, use.tenant, use.conversation) == (
        "login",
        "user:ann",
        "acme",
        "c1",
    )
    assert use.skill == "test.v1.TestService/Test"
    assert use.cause == "run-1/step-2"
    assert use.trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert (outcome.code, outcome.reason, outcome.kept) == ("OK", "", False)
    assert timedelta(0) < outcome.duration < MINUTE
    assert use.arguments is not None
    free = use.arguments.pop("free")  # type: ignore[attr-defined]
    assert use.arguments == {
        "user": "ann\N{REPLACEMENT CHARACTER}",
        "pin": "[redacted]",
        "answers": "[redacted]",
        "card": {"bank": "b", "number": "[redacted]"},
        "cards": [{"number": "[redacted]"}],
        "hidden": "[redacted]",
        "token": "5 bytes",
    }
    assert free["a"][0] == 1
    assert len(free["a"][1]) < 4_100


@pytest.mark.parametrize("kind", ["memory", "database"])
async def test_records_of_refusals_and_of_what_was_kept(kind, audit: DatabaseAudit) -> None:
    where: Any = audit if kind == "database" else MemoryAudit()
    kept = saying(Said(), keeping=Keeping(ttl=MINUTE))
    limited = saying(Said(), name="limited", scopes=(), rate=Rate(per_second=0.01))
    async with Toolbox([kept, limited], audit=where) as toolbox:
        for name in ("say", "say", "limited", "limited", "say"):
            with contextlib.suppress(rpc.Error):
                await serving(ANN, lambda name=name: ask(toolbox, name=name), conversation="c")
        with contextlib.suppress(rpc.Error):
            eve = signed("user:eve", tenant="acme")
            await serving(eve, lambda: ask(toolbox), conversation="c")
    found = where.uses if kind == "memory" else await audit.find("acme", "c")
    assert [(use.tool, use.subject, outcome.code, outcome.kept) for use, outcome in found] == [
        ("say", "user:ann", "OK", False),
        ("say", "user:ann", "OK", True),
        ("limited", "user:ann", "OK", False),
        ("limited", "user:ann", "RESOURCE_EXHAUSTED", False),
        ("say", "user:ann", "OK", True),
        ("say", "user:eve", "PERMISSION_DENIED", False),
    ]


async def test_what_cannot_be_recorded_is_not_done() -> None:
    class Away(MemoryAudit):
        async def begin(self, use: Any) -> None:
            raise rpc.Unavailable

        async def note(self, use: Any, outcome: Any) -> None:
            raise rpc.Unavailable

    run = Said()
    async with Toolbox([saying(run)], audit=Away()) as toolbox:
        with pytest.raises(rpc.Unavailable):
            await serving(ANN, lambda: ask(toolbox))
        with pytest.raises(ScopeMissing):  # nobody is told less than that for it
            await serving(None, lambda: ask(toolbox))
    assert not run.heard


async def test_records_that_hang_take_no_more_than_the_time_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recording, "_PATIENCE", 0.02)
    may_end = asyncio.Event()

    class Hanging(MemoryAudit):
        async def begin(self, use: Any) -> None:
            await may_end.wait()

        async def note(self, use: Any, outcome: Any) -> None:
            await may_end.wait()

    run = Said()
    async with Toolbox([saying(run)], audit=Hanging()) as toolbox:
        with pytest.raises(rpc.DeadlineExceeded):
            await asyncio.wait_for(serving(ANN, lambda: ask(toolbox), seconds=0.05), 10)
        may_end.set()
    assert not run.heard


async def test_a_record_that_cannot_be_ended_is_in_the_log(caplog) -> None:
    class Forgetful(MemoryAudit):
        async def end(self, use: Any, outcome: Any) -> None:
            raise rpc.Unavailable

    with caplog.at_level(logging.ERROR):
        async with Toolbox([saying(Said())], audit=Forgetful()) as toolbox:
            assert await serving(ANN, lambda: ask(toolbox)) == "hello 1"
    assert "is not recorded" in caplog.text


async def test_old_records_are_forgotten(audit: DatabaseAudit) -> None:
    async with Toolbox([saying(Said())], audit=audit) as toolbox:
        await serving(ANN, lambda: ask(toolbox))
    assert await audit.forget(MINUTE) == 0
    assert await audit.forget(timedelta(0)) == 1


# Metrics and spans


async def test_uses_are_counted_and_traced() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    metrics = Instruments("test")
    telemetry = Telemetry(metrics=metrics, tracer=tracer)

    async def fail() -> None:
        raise rpc.Internal

    tools = [saying(Said(), keeping=Keeping(ttl=MINUTE)), saying(Said(fail), name="bad", scopes=())]
    async with Toolbox(tools, audit=MemoryAudit(), telemetry=telemetry) as toolbox:

        async def traced() -> None:
            with tracer.start_as_current_span("call"):
                await ask(toolbox)
                await ask(toolbox)
                with pytest.raises(rpc.Internal):
                    await ask(toolbox, name="bad")

        await serving(ANN, traced)
        await serving(ANN, lambda: ask(toolbox))  # not traced, and so no span
    first, _, bad, call = exporter.get_finished_spans()
    assert first.name == "execute_tool say"
    assert dict(first.attributes or {}) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "say",
        "gen_ai.tool.type": "function",
    }
    assert first.parent is not None
    assert first.parent.span_id == call.context.span_id
    assert bad.status.status_code.name == "ERROR"
    assert (bad.attributes or {})["error.type"] == "INTERNAL"

    def counted(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    duration = "weft_tool_use_duration_seconds_count"
    assert counted(duration, tool="say", outcome="OK") == 3
    assert counted(duration, tool="bad", outcome="INTERNAL") == 1
    assert counted("weft_tool_kept_total", tool="say", outcome="hit") == 2
    assert counted("weft_tool_kept_total", tool="say", outcome="miss") == 1
    provider.shutdown()


# Declaring


async def test_a_function_becomes_a_tool_by_its_annotations() -> None:
    @tool(effects=False, scopes=["math"], timeout=MINUTE)
    async def add_up(request: CalculateRequest) -> CalculateResponse:
        """Adds up.

        In detail.
        """
        return CalculateResponse(value=request.expression)

    assert (add_up.name, add_up.description, add_up.required) == ("add_up", "Adds up.", ("math",))
    schema: Any = add_up.input_schema
    assert schema["required"] == ["expression"]
    assert schema["additionalProperties"] is False
    assert "parentheses" in schema["properties"]["expression"]["description"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "a b"},
        {"name": ""},
        {"name": "x" * 65},
        {"description": ""},
        {"scopes": "tools.say"},
        {"timeout": timedelta(0)},
        {"effects": True, "keeping": Keeping(ttl=MINUTE)},
    ],
)
def test_what_cannot_be_a_tool_is_none(wrong) -> None:
    with pytest.raises(ValueError, match="say|name"):
        saying(Said(), **wrong)


def test_what_cannot_be_a_rate_or_a_time_is_none() -> None:
    for make in (
        lambda: Rate(per_second=0),
        lambda: Rate(per_second=1, burst=0.5),
        lambda: Keeping(ttl=timedelta(0)),
    ):
        with pytest.raises(ValueError, match="0"):
            make()
    for run in (_no_messages, _two):
        with pytest.raises(TypeError):
            tool()(run)


async def _no_messages(request: int) -> int:
    return request


async def _two(request: CalculateRequest, other: CalculateRequest) -> CalculateResponse:
    raise NotImplementedError


def test_no_scopes_named_is_a_scope_of_its_own() -> None:
    assert saying(Said()).required == ("tools.say",)
