"""The two services over a TraceStore: spans come in by OTLP, questions are answered by TraceQueryService."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from weft import rpc
from weft.traces.store import TraceStore
from weft.v1 import trace_pb2, trace_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]

_PAGE, _MAX_PAGE = 20, 200
_TRACE_ID = re.compile(r"[0-9a-f]{32}")


class TraceUnknown(rpc.NotFound):
    """No such trace: it was not sampled, or is no longer kept. `weft trace` lists recent ones."""

    reason = "TRACE_UNKNOWN"


class OtlpReceiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans from any OpenTelemetry SDK."""

    def __init__(self, store: TraceStore) -> None:
        self._store = store

    async def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: Context
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        """Keeps the spans."""
        del context
        self._store.add(request.resource_spans)
        return trace_service_pb2.ExportTraceServiceResponse()


class TraceQuery(trace_pb2_grpc.TraceQueryServiceServicer):
    """Answers what was traced lately."""

    def __init__(self, store: TraceStore) -> None:
        self._store = store

    async def GetTrace(
        self, request: trace_pb2.GetTraceRequest, context: Context
    ) -> trace_pb2.GetTraceResponse:
        """Returns the spans of a trace.

        Raises:
            InvalidArgument: the id is not 32 hexadecimal digits.
            TraceUnknown: there is no such trace.
        """
        del context
        if not _TRACE_ID.fullmatch(request.trace_id):
            raise rpc.InvalidArgument("must be 32 lower-case hexadecimal digits", field="trace_id")
        spans = self._store.spans(request.trace_id)
        if not spans:
            raise TraceUnknown
        return trace_pb2.GetTraceResponse(trace_id=request.trace_id, spans=spans)

    async def ListTraces(
        self, request: trace_pb2.ListTracesRequest, context: Context
    ) -> trace_pb2.ListTracesResponse:
        """Lists the newest traces.

        Raises:
            InvalidArgument: the page size is negative.
        """
        del context
        if request.page_size < 0:
            raise rpc.InvalidArgument("must not be negative", field="page_size")
        count = min(request.page_size or _PAGE, _MAX_PAGE)
        return trace_pb2.ListTracesResponse(traces=self._store.newest(count))


def services(store: TraceStore) -> list[tuple[Callable[[Any, Any], None], object]]:
    """Both services over a store, each as (what adds it to a server, servicer)."""
    return [
        (trace_service_pb2_grpc.add_TraceServiceServicer_to_server, OtlpReceiver(store)),
        (trace_pb2_grpc.add_TraceQueryServiceServicer_to_server, TraceQuery(store)),
    ]
