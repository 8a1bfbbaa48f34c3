"""The gRPC binding of A2A (specification, 10): lf.a2a.v1.A2AService at the gateway's gRPC port, for all agents.

There are no paths here: an agent is named by `tenant`, as its card says. Messages are turned into the JSON that the other
bindings have, and back, by the codecs of the gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from importlib import resources
from time import perf_counter
from typing import Any, NoReturn

import grpc
import orjson

from weft import rpc
from weft.gateway.doors.a2a import errors, protocol
from weft.gateway.doors.a2a.door import GRPC_PREFIX, A2aDoor
from weft.gateway.doors.a2a.params import Params
from weft.gateway.doors.a2a.protocol import Json
from weft.gateway.doors.calls import Calls
from weft.gateway.http.exchange import Exchange
from weft.gateway.transcoding.catalog import Catalog, Contract, Method
from weft.telemetry import Telemetry

log = logging.getLogger("weft.gateway")

C = grpc.StatusCode
Context = grpc.aio.ServicerContext[bytes, bytes]

_SERVICE = "lf.a2a.v1.A2AService"
_MARGIN = 0.25  # seconds to answer in, of what a caller waits


class A2aGrpc(grpc.GenericRpcHandler):
    """Serves A2A by gRPC.

    Args:
        door: does what is asked for.
        calls: the way of requests to agents.
        telemetry: where calls are counted.
    """

    def __init__(self, door: A2aDoor, calls: Calls, *, telemetry: Telemetry | None = None) -> None:
        described = resources.files(__package__).joinpath("a2a.binpb").read_bytes()
        contract = Contract(agent="a2a", descriptor_set=described, services=(_SERVICE,))
        self._handlers = {
            path: _handler(_Operation(method, door, calls, telemetry))
            for path, method in Catalog([contract]).methods.items()
        }

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of an operation; None: the call is for somebody else."""
        return self._handlers.get(handler_call_details.method)


class _Operation:
    """One operation."""

    def __init__(
        self, method: Method, door: A2aDoor, calls: Calls, telemetry: Telemetry | None
    ) -> None:
        self.streams = method.server_streaming
        self._method = method
        self._door = door
        self._calls = calls
        self._metrics = telemetry.metrics if telemetry else None

    async def unary(self, request: bytes, context: Context) -> bytes:
        async with self._counted(context) as exchange:
            answer = await self._ask(exchange, request, context)
            assert isinstance(answer, bytes)
            return self._method.response_codec.to_wire(answer)
        raise AssertionError  # an error was told

    async def stream(self, request: bytes, context: Context) -> AsyncIterator[bytes]:
        async with self._counted(context) as exchange:
            events = await self._ask(exchange, request, context)
            assert not isinstance(events, bytes)
            async with contextlib.aclosing(events):
                async for batch in events:
                    for event in batch:
                        yield self._method.response_codec.to_wire(event)

    async def _ask(self, exchange: Exchange, request: bytes, context: Context) -> Any:
        scopes = await self._calls.visit(exchange)
        values: Json = orjson.loads(self._method.request_codec.to_json(request))
        tenant = values.pop("tenant", "")
        answer = await self._door.ask(
            exchange, self._door.agent_of(tenant), self._method.name, Params(values), scopes
        )
        if exchange.answer_headers:
            told = tuple((name.decode(), value.decode()) for name, value in exchange.answer_headers)
            await context.send_initial_metadata(told)
        return answer

    @contextlib.asynccontextmanager
    async def _counted(self, context: Context) -> AsyncIterator[Exchange]:
        exchange = _exchange(self._method.path, context)
        began = perf_counter()
        code = C.OK
        try:
            yield exchange
        except rpc.Error as failed:
            code = failed.code
            await _abort(context, failed)
        except (asyncio.CancelledError, GeneratorExit):
            code = C.CANCELLED
            raise
        except Exception:
            code = C.INTERNAL
            log.exception("%s failed", self._method.path)
            await _abort(context, rpc.Internal())
        finally:
            if self._metrics is not None:
                name = self._door.name_of(exchange)
                self._metrics.door_call(protocol.NAME, name)(code, perf_counter() - began)


def _handler(operation: _Operation) -> grpc.RpcMethodHandler[Any, Any]:
    if operation.streams:
        return grpc.unary_stream_rpc_method_handler(operation.stream)
    return grpc.unary_unary_rpc_method_handler(operation.unary)


def _exchange(path: str, context: Context) -> Exchange:
    """A request as the other bindings have it."""
    assert path.startswith(GRPC_PREFIX)
    headers = [
        (key.encode(), value if isinstance(value, bytes) else value.encode())
        for key, value in context.invocation_metadata() or ()
        if not key.startswith("weft-")
    ]
    left = context.time_remaining()
    if left is not None:
        patience = max(left - _MARGIN, left / 2)
        headers.append((b"x-request-timeout", f"{patience:.3f}".encode()))
    scope = {"method": "POST", "raw_path": path.encode(), "query_string": b"", "headers": headers}
    return Exchange(scope, asyncio.get_running_loop().create_future, _nowhere)


async def _nowhere(message: object) -> None:
    del message


async def _abort(context: Context, error: rpc.Error) -> NoReturn:
    details = ((rpc.DETAILS_KEY, errors.status(error)),)
    await context.abort(error.code, errors.words(error), details)
