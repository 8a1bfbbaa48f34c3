"""Recent traces, from the registry process that keeps them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import grpc

from weft.cli import connect, waterfall
from weft.v1 import trace_pb2, trace_pb2_grpc

_POLL = 0.1  # seconds
_QUIET = 0.8  # seconds; every process sends its spans twice a second


async def recent(registry: str, limit: int) -> list[trace_pb2.TraceSummary]:
    """The newest traces, newest first."""
    async with connect.to_part(registry) as channel:
        with connect.told(registry):
            stub = trace_pb2_grpc.TraceQueryServiceStub(channel)
            request = trace_pb2.ListTracesRequest(page_size=limit)
            return list((await stub.ListTraces(request, timeout=connect.PATIENCE)).traces)


async def spans(registry: str, trace_id: str, wait: float) -> list[trace_pb2.Span]:
    """The spans of a trace; with `wait`, asked for that many seconds until none seems to be missing.

    Raises:
        rpc.NotFound: there is no such trace.
    """
    until = time.monotonic() + wait
    seen = _Seen()
    async with connect.to_part(registry) as channel:
        stub = trace_pb2_grpc.TraceQueryServiceStub(channel)
        request = trace_pb2.GetTraceRequest(trace_id=trace_id)
        while True:
            late = time.monotonic() >= until
            with connect.told(registry):
                try:
                    answer = await stub.GetTrace(request, timeout=connect.PATIENCE)
                    if late or seen.is_whole(answer.spans):
                        return list(answer.spans)
                except grpc.aio.AioRpcError as failed:
                    if late or failed.code() is not grpc.StatusCode.NOT_FOUND:
                        raise
            await asyncio.sleep(_POLL)


class _Seen:
    """What has come in of a trace, each process sending its spans at times of its own."""

    def __init__(self) -> None:
        self._count = 0
        self._since = time.monotonic()

    def is_whole(self, spans: Sequence[trace_pb2.Span]) -> bool:
        """Whether no span seems to be missing."""
        if len(spans) != self._count:
            self._count, self._since = len(spans), time.monotonic()
        if waterfall.is_whole(spans):
            return True
        # Who called from outside may have a span of its own, and a call that failed may have arrived nowhere.
        return len(waterfall.top(spans)) == 1 and time.monotonic() - self._since > _QUIET
