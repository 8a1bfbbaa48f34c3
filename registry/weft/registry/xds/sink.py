"""Where calls to agents that were never registered end: at once, with an answer that says what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import Any

import grpc

from weft import rpc


class AgentUnknown(rpc.NotFound):
    """No agent of this name was ever registered. `weft agents` lists the names."""

    reason = "AGENT_UNKNOWN"


class Sink(grpc.GenericRpcHandler):
    """Answers every method that the server itself does not have with NOT_FOUND.

    Args:
        served: full names of the services that the server has; theirs are left to it.
    """

    def __init__(self, served: Collection[str]) -> None:
        self._served = frozenset(served)
        self._handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
            _refuse
        )

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler for any shape of method: it reads nothing."""
        service = handler_call_details.method.lstrip("/").rpartition("/")[0]
        if service in self._served or service.startswith("grpc."):
            return None
        return self._handler


async def _refuse(
    _requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
) -> None:
    error = AgentUnknown()
    status = rpc.status_proto(error).SerializeToString()
    await context.abort(error.code, error.message, ((rpc.DETAILS_KEY, status),))
