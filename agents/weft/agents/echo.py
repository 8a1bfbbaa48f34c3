"""The agent `echo`: says back what it is told, for checks and measurements."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
from google.rpc import status_pb2

from weft import rpc
from weft.echo.v1 import echo_pb2, echo_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]

_MAX_PAUSE = timedelta(seconds=60)
_MAX_COUNT = 100_000


class Echo(echo_pb2_grpc.EchoServiceServicer):
    """Says back what it is told.

    Args:
        instance: how it calls itself in answers.
    """

    def __init__(self, instance: str | None = None) -> None:
        self.instance = instance or uuid.uuid4().hex[:8]

    async def Say(self, request: echo_pb2.SayRequest, context: Context) -> echo_pb2.SayResponse:
        """Says a message back."""
        left = context.time_remaining()
        await _pause("delay", request.delay.ToTimedelta())
        _fail("fail_with", request.fail_with)
        call = rpc.current_call()
        identity = call.identity if call is not None else None
        answer = echo_pb2.SayResponse(
            text=request.text,
            instance=self.instance,
            caller=identity.subject if identity is not None else "",
        )
        if left is not None:
            answer.time_left.FromTimedelta(timedelta(seconds=left))
        return answer

    async def SayOnce(
        self, request: echo_pb2.SayOnceRequest, context: Context
    ) -> echo_pb2.SayOnceResponse:
        """Says a message back."""
        return echo_pb2.SayOnceResponse(said=await self.Say(request.say, context))

    async def Repeat(
        self, request: echo_pb2.RepeatRequest, context: Context
    ) -> AsyncIterator[echo_pb2.RepeatResponse]:
        """Says a message back `count` times."""
        del context
        if not 0 <= request.count <= _MAX_COUNT:
            raise rpc.InvalidArgument(f"must be 0 to {_MAX_COUNT}", field="count")
        for number in range(request.count):
            await _pause("pause", request.pause.ToTimedelta())
            yield echo_pb2.RepeatResponse(text=request.text, number=number)
        _fail("fail_with", request.fail_with)

    async def Gather(
        self, request_iterator: AsyncIterator[echo_pb2.GatherRequest], context: Context
    ) -> echo_pb2.GatherResponse:
        """Says all messages back as one."""
        del context
        texts = [request.text async for request in request_iterator]
        return echo_pb2.GatherResponse(texts=texts)

    async def Talk(
        self, request_iterator: AsyncIterator[echo_pb2.TalkRequest], context: Context
    ) -> AsyncIterator[echo_pb2.TalkResponse]:
        """Says each message back as it comes."""
        del context
        async for request in request_iterator:
            yield echo_pb2.TalkResponse(text=request.text)


async def _pause(field: str, span: timedelta) -> None:
    if not timedelta(0) <= span <= _MAX_PAUSE:
        raise rpc.InvalidArgument("must be 0 to 60 s", field=field)
    if span:
        await asyncio.sleep(span.total_seconds())


def _fail(field: str, code: int) -> None:
    if code == 0:
        return
    if not 1 <= code <= 16:  # noqa: PLR2004 the canonical codes
        raise rpc.InvalidArgument("must be 0 to 16", field=field)
    raise rpc.error_from_status(
        status_pb2.Status(code=code, message="The caller asked for this failure.")
    )
