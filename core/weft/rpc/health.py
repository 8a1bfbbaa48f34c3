"""grpc.health.v1 of a server, with watches that end when the server stops.

The servicer of grpcio-health-checking keeps its watches open for ever, so each one would hold up the stop of a server
for all of its grace.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_Response = health_pb2.HealthCheckResponse
_STATUS = {
    True: _Response.SERVING,
    False: _Response.NOT_SERVING,
    None: _Response.SERVICE_UNKNOWN,
}


class Health(health_pb2_grpc.HealthServicer):
    """Status by service; "" is the server as a whole."""

    def __init__(self) -> None:
        self._serving = {"": True}
        self._stopping = False
        self._changed = asyncio.Event()

    def set(self, service: str, *, serving: bool) -> None:
        """Tells how a service is."""
        self._serving[service] = serving
        self._tell()

    def stop(self) -> None:
        """Turns every service to NOT_SERVING for good and lets the watches end after they said so."""
        self._stopping = True
        self._serving = dict.fromkeys(self._serving, False)
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> _Response:
        """Tells how a service is; NOT_FOUND for one that is not served."""
        serving = self._serving.get(request.service)
        if serving is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"{request.service} is not served here")
        return _Response(status=_STATUS[serving])

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[_Response]:
        """Tells how a service is, now and whenever it changes."""
        del context
        last = None
        while True:
            changed = self._changed
            serving = self._serving.get(request.service)
            status = _STATUS[serving]
            if status != last:
                last = status
                yield _Response(status=status)
            if self._stopping:
                return
            await changed.wait()
