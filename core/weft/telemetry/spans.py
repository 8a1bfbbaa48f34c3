"""Spans: made only for calls that are sampled, sent by OTLP."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from weft.telemetry.late import PlannedIds

Dial = tuple[grpc.ChannelCredentials, Sequence[tuple[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureReceiver:
    """A receiver that asks for certificates which change."""

    address: str
    """"host:port"."""
    generation: Callable[[], int]
    """Differs when the certificate was changed."""
    dial: Callable[[], Dial]
    """Credentials and options of a channel, as of now."""


def tracer_provider(
    service: str, endpoints: Sequence[str | SecureReceiver], ids: PlannedIds
) -> TracerProvider:
    """A provider that sends every span to each OTLP/gRPC endpoint ("host:port" or a URL).

    Whether a call is traced at all is decided before a span is made (weft.rpc), so the sampler here keeps all.
    """
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
        exporter = (
            _Renewed(endpoint) if isinstance(endpoint, SecureReceiver) else _exporter(endpoint)
        )
        provider.add_span_processor(
            BatchSpanProcessor(
                exporter,
                schedule_delay_millis=500,
                export_timeout_millis=2_000,
            )
        )
    return provider


def _exporter(endpoint: str, dial: Dial | None = None) -> SpanExporter:
    # Imported late: the exporter costs start-up time, and a command that traces nothing never needs it.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    if dial is not None:
        credentials, options = dial
        return OTLPSpanExporter(
            endpoint=f"https://{endpoint}",
            credentials=credentials,
            channel_options=tuple(options),  # type: ignore[arg-type]  # pairs of any number, as gRPC takes them
            timeout=2,
        )
    return OTLPSpanExporter(
        endpoint=endpoint if "://" in endpoint else f"http://{endpoint}",
        insecure=not endpoint.startswith("https://"),
        timeout=2,
    )


class _Renewed(SpanExporter):
    """Exports with the certificate of now; called by one thread at a time."""

    def __init__(self, receiver: SecureReceiver) -> None:
        self._receiver = receiver
        self._generation = receiver.generation()
        self._inner = _exporter(receiver.address, receiver.dial())

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Sends spans."""
        if (now := self._receiver.generation()) != self._generation:
            self._inner.shutdown()
            self._generation = now
            self._inner = _exporter(self._receiver.address, self._receiver.dial())
        return self._inner.export(spans)

    def shutdown(self) -> None:
        """Closes the connection."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is kept here."""
        return self._inner.force_flush(timeout_millis)
