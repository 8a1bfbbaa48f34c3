"""What a call takes along: the deadline, identity, conversation and trace of the call being served."""

from __future__ import annotations

import math
from typing import Any

import grpc
from opentelemetry import trace

from weft.rpc.call import (
    TRACEPARENT_KEY,
    Metadata,
    current_call,
    format_traceparent,
    new_traceparent,
)
from weft.rpc.deadline import Deadline
from weft.rpc.tracing import AGENT, end_span, keep_made, trace_id_of
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
        server: whom it is sent to, such as "10.0.0.7:9000" or "xds:///greeter".
        streaming: whether either side sends more than one message.
    """

    __slots__ = (
        "attributes",
        "implied",
        "late",
        "method",
        "own",
        "record",
        "slow",
        "telemetry",
        "tracer",
    )

    def __init__(
        self,
        method: str,
        telemetry: Telemetry | None,
        implied: float | None,
        own: Metadata = (),
        *,
        measured: bool,
        server: str = "",
        streaming: bool = False,
    ) -> None:
        self.method = method.lstrip("/")
        self.telemetry = telemetry
        self.tracer = telemetry.tracer if telemetry else None
        self.record = telemetry.metrics.client_call(self.method) if telemetry and measured else None
        self.implied = implied
        self.own = own
        self.attributes = {
            "rpc.system.name": "grpc",
            "rpc.method": self.method,
            **_server(server),
        }
        self.late = telemetry.late if telemetry and self.tracer is not None else None
        # How long a stream lasts says nothing.
        self.slow = self.late.slow if self.late is not None and not streaming else math.inf

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
            attributes = self.attributes
            if call is not None and call.agent:
                attributes = {**attributes, AGENT: call.agent}
            span = self.tracer.start_span(
                self.method, kind=trace.SpanKind.CLIENT, attributes=attributes
            )
            traceparent = format_traceparent(span.get_span_context())
        else:
            traceparent = new_traceparent() if call is None else call.traceparent
        return (*(given or ()), *added, (TRACEPARENT_KEY, traceparent)), span

    def ended(
        self,
        code: grpc.StatusCode,
        seconds: float,
        span: trace.Span | None,
        sent: Metadata,
        *,
        root: bool,
    ) -> str:
        """Ends the span of a call, or writes one now for a call that failed or took long; its trace, empty: none.

        Args:
            code: how it ended.
            seconds: how long it took.
            span: the span of the call; None: it was not sampled.
            sent: metadata it was sent with.
            root: whether it began its trace.
        """
        if span is not None:
            end_span(span, code)
            return trace_id_of(span)
        if self.late is None:
            return ""
        key, traceparent = sent[-1]
        if key != TRACEPARENT_KEY or not isinstance(traceparent, str):
            return ""
        attributes = self.attributes
        return keep_made(self.late, self.method, traceparent, attributes, code, seconds, root=root)

    def _sampled(self, call: Any) -> bool:
        active = trace.get_current_span().get_span_context()
        if active.is_valid:
            return active.trace_flags.sampled
        return call is None and self.telemetry is not None and self.telemetry.sample()


def _server(target: str) -> dict[str, str]:
    """Attributes that say whom a call is sent to."""
    if not target:
        return {}
    host, colon, port = target.rpartition(":")
    if colon and port.isdecimal():
        return {"server.address": host.strip("[]"), "server.port": port}
    return {"server.address": target.rpartition("/")[2]}


def _traced(metadata: Metadata) -> bool:
    return any(key == TRACEPARENT_KEY for key, _ in metadata)
