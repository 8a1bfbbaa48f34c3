"""What a process needs to be seen: metrics, spans, and the page Prometheus reads."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from opentelemetry import trace
from prometheus_client import disable_created_metrics

from weft.telemetry.instruments import Instruments
from weft.telemetry.late import Late, PlannedIds
from weft.telemetry.pages import Page, served
from weft.telemetry.sentry import Report, Sentry
from weft.telemetry.spans import tracer_provider


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """Metrics and tracer of one process, handed to whatever serves or makes calls.

    Attributes:
        metrics: the instruments.
        tracer: makes spans; None when nothing is traced.
        sample_ratio: share of new traces that are recorded, 0 to 1. A caller's decision is kept.
        late: writes spans of calls that were not sampled, and failed or took long; None: nobody does.
        report: is told of errors that are this process' own fault; None: nobody is.
        metrics_address: where /metrics is served, "127.0.0.1:7170"; empty: nowhere.
        pages: JSON pages beside it, by path; a part adds its own.
    """

    metrics: Instruments
    tracer: trace.Tracer | None = None
    sample_ratio: float = 0.0
    late: Late | None = None
    report: Report | None = None
    metrics_address: str = ""
    pages: dict[str, Page] = field(default_factory=dict)

    def sample(self) -> bool:
        """Decides whether a trace that begins here is recorded."""
        ratio = self.sample_ratio
        return ratio > 0 and (ratio >= 1 or random.random() < ratio)  # noqa: S311 not a secret


@contextlib.asynccontextmanager
async def start(
    service: str,
    *,
    sample_ratio: float = 0.0,
    otlp_endpoints: Sequence[str] = (),
    keep: bool = True,
    slow: timedelta = timedelta(seconds=5),
    sentry_dsn: str = "",
    metrics_address: str | None = None,
) -> AsyncIterator[Telemetry]:
    """Runs the telemetry of a process; leaving the block sends what spans are left.

    Args:
        service: what the process is, such as "gateway".
        sample_ratio: share of new traces to record, 0 to 1.
        otlp_endpoints: OTLP/gRPC receivers of spans; none: nothing is traced.
        keep: whether calls that fail or take long are recorded though their trace is not sampled.
        slow: from when on a call takes long; 0: none does.
        sentry_dsn: where errors that are the process' own fault are told; empty: nowhere.
        metrics_address: "host:port" to serve /metrics on, port 0 for any; None: not served.

    Raises:
        OSError: the metrics address cannot be bound.
        ValueError: the DSN is none.
    """
    ids = PlannedIds()
    provider = tracer_provider(service, otlp_endpoints, ids) if otlp_endpoints else None
    async with contextlib.AsyncExitStack() as stack:
        # A series beside each counter that says when it began: Prometheus notices resets by itself.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        metrics = Instruments(service)
        bound = ""
        pages: dict[str, Page] = {}
        if metrics_address is not None:
            serving = served(metrics_address, metrics.registry, pages)
            bound = await stack.enter_async_context(serving)
        report = None
        if sentry_dsn:
            report = Sentry(sentry_dsn, service)
            stack.push_async_callback(asyncio.to_thread, report.close)
        if provider is not None:
            stack.push_async_callback(asyncio.to_thread, provider.shutdown)
        tracer = provider.get_tracer("weft") if provider else None
        late = None
        if tracer is not None and keep:
            late = Late(tracer, ids, slow=slow.total_seconds() or math.inf)
        yield Telemetry(
            metrics=metrics,
            tracer=tracer,
            late=late,
            report=report,
            sample_ratio=sample_ratio if provider else 0.0,
            metrics_address=bound,
            pages=pages,
        )
