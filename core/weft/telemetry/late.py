"""Spans that are written when a call has ended: of those that failed or took long, whatever was decided at its begin.

A real span for each call would cost every call (benchmarks/rpc.py: at 32 in flight 0.81 instead of 0.90 of a bare one). So
nothing is made for a call that is not sampled; its ids are those it was sent with anyway, and its times are known at its end.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

MOST = 100  # spans a second, of one process: a storm of failures must not become one of spans
_SAMPLED = trace.TraceFlags(trace.TraceFlags.SAMPLED)
_NS = 1_000_000_000


class PlannedIds(RandomIdGenerator):
    """Random ids, but for a span whose ids are settled already."""

    def __init__(self) -> None:
        self._planned: tuple[int, int] | None = None

    def plan(self, trace_id: int, span_id: int) -> None:
        """Settles the ids of the next span; of its trace id only where it has no parent."""
        self._planned = (trace_id, span_id)

    def generate_span_id(self) -> int:
        """That of the plan, once, else a random one."""
        planned, self._planned = self._planned, None
        return super().generate_span_id() if planned is None else planned[1]

    def generate_trace_id(self) -> int:
        """That of the plan, else a random one."""
        return super().generate_trace_id() if self._planned is None else self._planned[0]


class Late:
    """Writes such spans. Not thread-safe: it lives on the event loop.

    Args:
        tracer: makes them.
        ids: those of its provider.
        slow: seconds from which on a call is slow; infinite: none is.
        most: spans a second.
    """

    def __init__(
        self, tracer: trace.Tracer, ids: PlannedIds, *, slow: float, most: int = MOST
    ) -> None:
        self.slow = slow
        self._tracer = tracer
        self._ids = ids
        self._most = most
        self._second = 0
        self._written = 0

    def keeps(self, *, failed: bool, seconds: float) -> bool:
        """Whether the span of a call is written that was not sampled."""
        return failed or seconds >= self.slow

    def write(
        self,
        name: str,
        kind: trace.SpanKind,
        context: trace.SpanContext,
        *,
        own: bool,
        seconds: float,
        attributes: Mapping[str, str],
        status: trace.Status | None,
    ) -> bool:
        """Writes the span of a call that ends now; whether it did.

        Args:
            name: of the span.
            kind: of the span.
            context: the trace context the call was made with.
            own: whether its span id is that of this call, which began the trace, and not that of its parent.
            seconds: how long it took.
            attributes: of the span.
            status: of the span; None: nothing is said.
        """
        now = time.time_ns()
        if now // _NS != self._second:
            self._second, self._written = now // _NS, 0
        self._written += 1
        if self._written > self._most:
            return False
        parent = otel_context.Context()
        if own:
            self._ids.plan(context.trace_id, context.span_id)
        else:
            # That its caller did not sample it would keep a sampler from doing so.
            above = trace.SpanContext(
                context.trace_id, context.span_id, is_remote=True, trace_flags=_SAMPLED
            )
            parent = trace.set_span_in_context(trace.NonRecordingSpan(above), parent)
        span = self._tracer.start_span(
            name,
            context=parent,
            kind=kind,
            attributes=attributes,
            start_time=now - int(seconds * _NS),
        )
        if status is not None:
            span.set_status(status)
        span.end(now)
        return True
