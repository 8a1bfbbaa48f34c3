"""One question to the support fleet, by whichever door is open."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from weft import rpc
from weft.cli import connect
from weft.cli.failures import Failure
from weft.cli.rest import ENTRY, Gateway, GatewayUnreachable
from weft.support.v1 import supervisor_pb2, supervisor_pb2_grpc, support_pb2

if TYPE_CHECKING:
    from weft.config import Settings

AGENT = "support-supervisor"
_WATCH = "/v1/support:watch"
Handled = supervisor_pb2.HandleResponse
MessageT = TypeVar("MessageT", bound=Message)
Seen = Callable[[support_pb2.Step], None]


def ask(
    settings: Settings,
    request: supervisor_pb2.HandleRequest,
    *,
    key: str,
    timeout: float,
    seen: Seen | None,
) -> Handled:
    """The answer, by the gateway, or by xDS when no gateway answers.

    Args:
        settings: where gateway and registry are.
        request: the question.
        key: API key for the gateway; empty: none.
        timeout: seconds it may take.
        seen: told each step as it begins and ends; None: only the result matters.

    Raises:
        Failure: neither door is open.
        rpc.Error: the fleet says why not.
    """
    gateway = Gateway(url=settings.gateway, key=key, timeout=timeout)
    try:
        return through(gateway, request, seen)
    except GatewayUnreachable as closed:
        try:
            return connect.run(_by_name(settings.registry, request, timeout, seen))
        except Failure as failed:
            raise Failure(
                f"Neither the gateway ({closed}) nor the registry at {settings.registry} can be "
                "reached. Start everything with `weft up`, or say where they are with WEFT_GATEWAY "
                "and WEFT_REGISTRY."
            ) from failed


def through(gateway: Gateway, request: supervisor_pb2.HandleRequest, seen: Seen | None) -> Handled:
    """The answer by a gateway. Raises GatewayUnreachable, and rpc.Error with the fleet's reason."""
    asked = json_format.MessageToDict(request)
    if seen is None:
        return _parsed(Handled, gateway.post(ENTRY, asked))
    for event in gateway.events(_WATCH, {"request": asked}):
        watched = _parsed(supervisor_pb2.WatchResponse, event)
        if watched.HasField("result"):
            return watched.result
        seen(watched.step)
    raise _no_result()


async def _by_name(
    registry: str,
    request: supervisor_pb2.HandleRequest,
    timeout: float,  # noqa: ASYNC109 gRPC's own
    seen: Seen | None,
) -> Handled:
    async with connect.registry(registry) as known:
        await known.agent(AGENT)
    async with connect.to_agent(registry, AGENT) as channel:
        stub = supervisor_pb2_grpc.SupervisorServiceStub(channel)
        metadata = connect.traced_metadata()
        if seen is None:
            handled: Handled = await stub.Handle(request, timeout=timeout, metadata=metadata)
            return handled
        watch = supervisor_pb2.WatchRequest(request=request)
        stream = stub.Watch(watch, timeout=timeout, metadata=metadata)
        async for watched in stream:
            if watched.HasField("result"):
                return watched.result
            seen(watched.step)
    raise _no_result()


def _no_result() -> rpc.Error:
    return rpc.DataLoss("The stream of steps ended without a result; ask again.")


def _parsed(kind: type[MessageT], document: Any) -> MessageT:
    # A gateway newer than this command may send fields it does not know.
    return json_format.ParseDict(document, kind(), ignore_unknown_fields=True)
