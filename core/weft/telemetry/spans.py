"""Spans: made only for calls that are sampled, sent by OTLP."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from weft.telemetry.late import PlannedIds


def tracer_provider(service: str, endpoints: Sequence[str], ids: PlannedIds) -> TracerProvider:
    """A provider that sends every span to each OTLP/gRPC endpoint ("host:port" or a URL).

    Whether a call is traced at all is decided before a span is made (weft.rpc), so the sampler here keeps all.
    """
    # Imported late: the exporter costs start-up time, and a command that traces nothing never needs it.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    provider = TracerProvider(
        sampler=ALWAYS_ON,
        id_generator=ids,
        resource=Resource.create(
            {
                "service.name": service,
                "service.namespace": "weft",
                "service.instance.id": uuid.uuid4().hex,
            }
        ),
        span_limits=SpanLimits(max_attribute_length=4_096),
        shutdown_on_exit=False,
    )
    for endpoint in endpoints:
        provider.add_span_processor(
            BatchSpanProcessor(
                OTLPSpanExporter(
                    endpoint=endpoint if "://" in endpoint else f"http://{endpoint}",
                    insecure=not endpoint.startswith("https://"),
                    timeout=2,
                ),
                schedule_delay_millis=500,
                export_timeout_millis=2_000,
            )
        )
    return provider
