"""The registry with the store of recent traces beside it, on one port."""

from __future__ import annotations

from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from weft import rpc, traces
from weft.registry import Registry
from weft.registry.xds import Sink
from weft.v1 import registry_pb2_grpc, trace_pb2_grpc

# Streams last for ever here: registrations, watches and three or more for each gRPC client process.
_MAX_CALLS = 1_000_000


class TracingRegistry(Registry):
    """A registry whose server takes spans by OTLP and answers questions about them."""

    def _server(self, parts: Any, plane: Any) -> rpc.Server:
        server = rpc.Server(
            self.address,
            telemetry=self._telemetry,
            max_concurrency=_MAX_CALLS,
            trace_roots=False,
        )
        store = traces.TraceStore()
        served: list[str] = []
        for add, servicer in (
            (registry_pb2_grpc.add_RegistryServiceServicer_to_server, parts.service),
            (plane.add_to, plane),
            (trace_pb2_grpc.add_TraceQueryServiceServicer_to_server, traces.TraceQuery(store)),
            (_add_otlp, traces.OtlpReceiver(store)),
        ):
            served += server.add(add, servicer, traced=False)
        server.add_fallback(Sink(served))
        return server


def _add_otlp(servicer: traces.OtlpReceiver, server: Any) -> None:
    # The code that OpenTelemetry ships is too old to register its methods.
    service = trace_service_pb2.DESCRIPTOR.services_by_name["TraceService"].full_name
    export = grpc.unary_unary_rpc_method_handler(
        servicer.Export,
        request_deserializer=trace_service_pb2.ExportTraceServiceRequest.FromString,
        response_serializer=trace_service_pb2.ExportTraceServiceResponse.SerializeToString,
    )
    server.add_registered_method_handlers(service, {"Export": export})
