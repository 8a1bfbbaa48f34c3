"""What a call takes along: the deadline, identity, conversation and trace of the call being served."""

from __future__ import annotations

import math
from typing import Any

from opentelemetry import trace

from weft.rpc.call import (
    TRACEPARENT_KEY,
    Metadata,
    current_call,
    format_traceparent,
    new_traceparent,
)
from weft.rpc.deadline import Deadline
from weft.rpc.tracing import AGENT
from weft.telemetry import Telemetry

_PASSED = -1.0  # seconds: gRPC starts a call that has 0 left, and it may even succeed


class Calling:
    """What is the same for all calls of a method from one place.

    Args:
        method: its path.
        telemetry: where calls are counted and traced; None: nowhere.
        implied: seconds a call may take whose caller names no deadline; None: any time.
        own: metadata of calls made while no call is being served.
        measured: whether calls are counted.
    """

    __slots__ = ("implied", "method", "own", "record", "telemetry", "tracer")

    def __init__(
        self,
        method: str,
        telemetry: Telemetry | None,
        implied: float | None,
        own: Metadata = (),
        *,
        measured: bool,
    ) -> None:
        self.method = method.lstrip("/")
        self.telemetry = telemetry
        self.tracer = telemetry.tracer if telemetry else None
        self.record = telemetry.metrics.client_call(self.method) if telemetry and measured else None
        self.implied = implied
        self.own = own

    def timeout(self, asked: float | None) -> float | None:
        """Seconds a call may take, of which its caller asks for `asked`; None: any time; below 0: none are left."""
        deadline = Deadline.current()
        if deadline is None:
            return self.implied if asked is None else asked
        left = deadline.seconds() or _PASSED
        asked = left if asked is None else min(asked, left)
        if math.isinf(asked):
            return self.implied
        return asked

    def metadata(self, given: Metadata | None) -> tuple[Metadata, trace.Span | None]:
        """Metadata to send, and the span of the call where it is traced; whoever makes the call ends it."""
        call = current_call()
        added = self.own if call is None else call.forwarded
        if given and _traced(given):
            return (*given, *added), None
        span: trace.Span | None = None
        if self.tracer is not None and self._sampled(call):
            attributes = {"rpc.system.name": "grpc", "rpc.method": self.method}
            if call is not None and call.agent:
                attributes[AGENT] = call.agent
            span = self.tracer.start_span(
                self.method, kind=trace.SpanKind.CLIENT, attributes=attributes
            )
            traceparent = format_traceparent(span.get_span_context())
        else:
            traceparent = new_traceparent() if call is None else call.traceparent
        return (*(given or ()), *added, (TRACEPARENT_KEY, traceparent)), span

    def _sampled(self, call: Any) -> bool:
        active = trace.get_current_span().get_span_context()
        if active.is_valid:
            return active.trace_flags.sampled
        return call is None and self.telemetry is not None and self.telemetry.sample()


def _traced(metadata: Metadata) -> bool:
    return any(key == TRACEPARENT_KEY for key, _ in metadata)
