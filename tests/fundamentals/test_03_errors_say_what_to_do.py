"""A handler raises; its caller gets the same error, with reason, fields and when to try again."""

from __future__ import annotations

import grpc
import pytest

from weft import rpc
from weft.agents import Mesh
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.rpc.testing import channel_for


class LineBusy(rpc.FailedPrecondition):
    """Somebody else is talking."""

    reason = "LINE_BUSY"


class Operator(echo_pb2_grpc.EchoServiceServicer):
    async def Say(self, request, context):
        if not request.text:
            raise rpc.InvalidArgument("must not be empty", field="text")
        raise LineBusy


async def told(request):
    async with channel_for(echo_pb2_grpc.add_EchoServiceServicer_to_server, Operator()) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await echo_pb2_grpc.EchoServiceStub(channel).Say(request)
    return rpc.error_from_call(failed.value)


async def test_an_error_keeps_its_reason():
    error = await told(echo_pb2.SayRequest(text="hello"))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LINE_BUSY")


async def test_a_bad_request_names_its_field():
    error = await told(echo_pb2.SayRequest())
    assert error.violations == (("text", "must not be empty"),)


async def test_an_unknown_agent_is_not_found_at_once(registry):
    async with Mesh(registry) as mesh:
        stub = mesh.stub(echo_pb2_grpc.EchoServiceStub, "nobody")
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.Say(echo_pb2.SayRequest())
    assert rpc.error_from_call(failed.value).reason == "AGENT_UNKNOWN"
