"""The store of recent traces, as services for the registry's port."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from weft import traces
from weft.v1 import trace_pb2_grpc

Added = tuple[Callable[[Any, Any], None], object]


def trace_services() -> list[Added]:
    """Servicers that take spans by OTLP and answer questions about them, each with what adds it to a server."""
    store = traces.TraceStore()
    return [
        (trace_pb2_grpc.add_TraceQueryServiceServicer_to_server, traces.TraceQuery(store)),
        (_add_otlp, traces.OtlpReceiver(store)),
    ]


def _add_otlp(servicer: traces.OtlpReceiver, server: Any) -> None:
    # The code that OpenTelemetry ships is too old to register its methods with a server.
    service = trace_service_pb2.DESCRIPTOR.services_by_name["TraceService"].full_name
    export = grpc.unary_unary_rpc_method_handler(
        servicer.Export,
        request_deserializer=trace_service_pb2.ExportTraceServiceRequest.FromString,
        response_serializer=trace_service_pb2.ExportTraceServiceResponse.SerializeToString,
    )
    server.add_registered_method_handlers(service, {"Export": export})
