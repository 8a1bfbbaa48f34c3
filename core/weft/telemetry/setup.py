"""What a process needs to be seen: metrics, spans, and the page Prometheus reads."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from opentelemetry import trace
from prometheus_client import start_http_server

from weft.telemetry.instruments import Instruments
from weft.telemetry.spans import SecureReceiver, tracer_provider


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """Metrics and tracer of one process, handed to whatever serves or makes calls.

    Attributes:
        metrics: the instruments.
        tracer: makes spans; None when nothing is traced.
        sample_ratio: share of new traces that are recorded, 0 to 1. A caller's decision is kept.
        metrics_address: where /metrics is served, "127.0.0.1:7170"; empty: nowhere.
    """

    metrics: Instruments
    tracer: trace.Tracer | None = None
    sample_ratio: float = 0.0
    metrics_address: str = ""

    def sample(self) -> bool:
        """Decides whether a trace that begins here is recorded."""
        ratio = self.sample_ratio
        return ratio > 0 and (ratio >= 1 or random.random() < ratio)  # noqa: S311 not a secret


@contextlib.asynccontextmanager
async def start(
    service: str,
    *,
    sample_ratio: float = 0.0,
    otlp_endpoints: Sequence[str | SecureReceiver] = (),
    metrics_address: str | None = None,
) -> AsyncIterator[Telemetry]:
    """Runs the telemetry of a process; leaving the block sends what spans are left.

    Args:
        service: what the process is, such as "gateway".
        sample_ratio: share of new traces to record, 0 to 1.
        otlp_endpoints: OTLP/gRPC receivers of spans; none: nothing is traced.
        metrics_address: "host:port" to serve /metrics on, port 0 for any; None: not served.

    Raises:
        OSError: the metrics address cannot be bound.
    """
    provider = tracer_provider(service, otlp_endpoints) if otlp_endpoints else None
    async with contextlib.AsyncExitStack() as stack:
        metrics = Instruments(service)
        bound = ""
        if metrics_address is not None:
            host, _, port = metrics_address.rpartition(":")
            server, thread = start_http_server(int(port), host.strip("[]"), metrics.registry)
            bound = f"{host}:{server.server_port}"

            async def close() -> None:
                await asyncio.to_thread(server.shutdown)
                server.server_close()
                await asyncio.to_thread(thread.join)

            stack.push_async_callback(close)
        if provider is not None:
            stack.push_async_callback(asyncio.to_thread, provider.shutdown)
        yield Telemetry(
            metrics=metrics,
            tracer=provider.get_tracer("weft") if provider else None,
            sample_ratio=sample_ratio if provider else 0.0,
            metrics_address=bound,
        )
