"""The error model: what a handler raises is what a caller reads."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import grpc
import pytest
from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st

from weft import rpc
from weft.agents.echo import Echo
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.rpc import errors
from weft.rpc.testing import channel_for

ADD = echo_pb2_grpc.add_EchoServiceServicer_to_server
TREE = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, rpc.Error) and kind.__module__ == errors.__name__
    if not kind.__name__.startswith("_") and kind is not rpc.Error
]


class Taken(rpc.FailedPrecondition):
    """Somebody else holds it."""

    reason = "TAKEN"


class Nobody(rpc.NotFound):
    """Made of something else than a message."""

    reason = "NOBODY"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no {name}.", metadata={"name": name})


class Raising(Echo):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    async def Say(self, request: echo_pb2.SayRequest, context: object) -> echo_pb2.SayResponse:
        raise self.error

    async def Repeat(self, request: echo_pb2.RepeatRequest, context: object):
        yield echo_pb2.RepeatResponse(text="first")
        raise self.error


async def told(error: BaseException) -> rpc.Error:
    async with channel_for(ADD, Raising(error)) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo_pb2_grpc.EchoServiceStub(channel).Say(echo_pb2.SayRequest())
        return rpc.error_from_call(caught.value)


def test_the_tree_has_one_class_for_each_canonical_code() -> None:
    assert {kind.code for kind in TREE} == set(grpc.StatusCode) - {grpc.StatusCode.OK}
    assert set(rpc.HTTP_STATUS) == set(grpc.StatusCode)
    assert set(rpc.CONNECT_CODE) == set(grpc.StatusCode) - {grpc.StatusCode.OK}


async def test_a_domain_error_keeps_code_message_reason_and_metadata() -> None:
    error = await told(Taken(metadata={"holder": "ann"}))
    assert isinstance(error, rpc.FailedPrecondition)
    assert (error.message, error.reason, error.metadata) == (
        "Somebody else holds it.",
        "TAKEN",
        {"holder": "ann"},
    )


@pytest.mark.parametrize("sign", ["x", "é", "\U0001f600", "\0", "%"])
async def test_an_error_of_any_size_reaches_its_caller(sign: str) -> None:
    many = await told(
        rpc.InvalidArgument(violations=[(f"paths[{n}]", sign * 90) for n in range(10_000)])
    )
    assert isinstance(many, rpc.InvalidArgument)
    assert len(many.violations) > 3
    assert many.violations == tuple((f"paths[{n}]", sign * 90) for n in range(len(many.violations)))
    one = await told(rpc.InvalidArgument(sign * 100_000, field=f'map["{sign * 100_000}"]'))
    assert isinstance(one, rpc.InvalidArgument)
    assert one.violations[0][0].startswith(f'map["{sign}')
    unknown = await told(
        Taken(sign * 100_000, metadata={"holder": sign * 100_000}, details=(status_pb2.Status(),))
    )
    assert (unknown.code, unknown.reason) == (Taken.code, Taken.reason)
    assert unknown.metadata["holder"].startswith(sign * 100)
    assert unknown.message.startswith(sign * 100)
    nobody = await told(Nobody(sign * 100_000))
    assert (nobody.code, nobody.reason) == (Nobody.code, Nobody.reason)
    assert nobody.message.startswith(f"There is no {sign}")


async def test_violations_name_their_fields() -> None:
    error = await told(
        rpc.InvalidArgument(violations=[("a.b[1]", "must be positive"), ("c", "no")])
    )
    assert isinstance(error, rpc.InvalidArgument)
    assert error.violations == (("a.b[1]", "must be positive"), ("c", "no"))
    assert error.message == "a.b[1]: must be positive; c: no"


async def test_retry_after_travels() -> None:
    error = await told(rpc.Unavailable("later", retry_after=timedelta(seconds=1.5)))
    assert isinstance(error, rpc.Unavailable)
    assert error.retry_after == timedelta(seconds=1.5)


async def test_a_bug_is_internal_and_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        error = await told(ValueError("password=hunter2"))
    assert isinstance(error, rpc.Internal)
    assert "hunter2" not in error.message
    assert any(
        "ValueError" in (record.exc_text or str(record.exc_info)) for record in caplog.records
    )


async def test_an_error_after_the_first_message_of_a_stream_arrives() -> None:
    async with channel_for(ADD, Raising(Taken())) as channel:
        call = echo_pb2_grpc.EchoServiceStub(channel).Repeat(echo_pb2.RepeatRequest())
        assert (await call.read()).text == "first"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert rpc.error_from_call(caught.value).reason == "TAKEN"


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (TimeoutError(), grpc.StatusCode.DEADLINE_EXCEEDED),
        (NotImplementedError(), grpc.StatusCode.UNIMPLEMENTED),
    ],
)
async def test_exceptions_that_mean_a_status(raised: Exception, code: grpc.StatusCode) -> None:
    assert (await told(raised)).code is code


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE),
        (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.DEADLINE_EXCEEDED),
        (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL),
    ],
)
async def test_a_dependency_s_failure_is_not_taken_for_one_s_own(
    inner: grpc.StatusCode, outer: grpc.StatusCode
) -> None:
    failed = grpc.aio.AioRpcError(
        inner, grpc.aio.Metadata(), grpc.aio.Metadata(), "10.0.0.1 refused"
    )
    error = await told(failed)
    assert error.code is outer
    assert "10.0.0.1" not in error.message


@given(
    kind=st.sampled_from(TREE),
    message=st.text(max_size=300),
    reason=st.from_regex(r"[A-Z][A-Z0-9_]{1,30}", fullmatch=True),
    metadata=st.dictionaries(st.text(max_size=20), st.text(max_size=50), max_size=4),
)
def test_an_error_survives_the_wire(
    kind: type[rpc.Error], message: str, reason: str, metadata: dict[str, str]
) -> None:
    sent = kind(message or "m", reason=reason, metadata=metadata)
    wire = rpc.status_proto(sent).SerializeToString()
    read = rpc.error_from_status(status_pb2.Status.FromString(wire))
    assert type(read) is kind
    assert (read.message, read.reason, read.metadata) == (sent.message, reason, metadata)


async def test_a_status_without_details_is_read_too() -> None:
    class Plain(Echo):
        async def Say(self, request: object, context: grpc.aio.ServicerContext) -> None:  # type: ignore[override]
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")

    async with channel_for(ADD, Plain()) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo_pb2_grpc.EchoServiceStub(channel).Say(echo_pb2.SayRequest())
    error = rpc.error_from_call(caught.value)
    assert isinstance(error, rpc.NotFound)
    assert error.message == "no such thing"


async def test_a_very_long_message_does_not_break_the_status() -> None:
    error = await told(rpc.NotFound("x" * 100_000))
    assert isinstance(error, rpc.NotFound)
    assert 1_000 < len(error.message) < 5_000


async def test_cancelling_a_call_is_no_error_of_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    class Waiting(Echo):
        async def Say(self, request: echo_pb2.SayRequest, context: object) -> echo_pb2.SayResponse:
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            raise AssertionError

    async with channel_for(ADD, Waiting()) as channel:
        call = echo_pb2_grpc.EchoServiceStub(channel).Say(echo_pb2.SayRequest())
        waiting = asyncio.ensure_future(call)
        await began.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await ended.wait()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
