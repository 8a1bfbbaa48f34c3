"""Spans of served calls. Whether a call is traced is decided before anything is made for it.

What a caller decided is kept (W3C Trace Context, sampled flag). opentelemetry-instrumentation-grpc decides inside
its interceptors, whose wrappers are paid for by calls that are not sampled too, and its client never ends the span
of a call that is cancelled; here an unsampled call costs one look at its metadata.
"""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from opentelemetry import context as otel_context
from opentelemetry import trace

from weft.rpc.call import TRACEPARENT_KEY, Call, parse_traceparent
from weft.rpc.status import SERVER_FAULTS
from weft.telemetry import Late, Telemetry

# One process serves many agents, so service.name of the resource does not tell which one it was.
AGENT = "weft.agent"
# Why a span was written though its trace was not sampled.
KEPT = "weft.kept"


def begin_span(
    telemetry: Telemetry,
    call: Call,
    attributes: Mapping[str, str],
    *,
    may_begin_trace: bool,
) -> None:
    """Starts the SERVER span of a call if it is sampled, and makes it current for this task."""
    assert telemetry.tracer is not None
    raw = call.first(TRACEPARENT_KEY)
    if isinstance(raw, str) and raw.endswith("-00"):
        return  # the usual case: decided already, and not sampled
    remote = parse_traceparent(raw) if isinstance(raw, str) else None
    parent = otel_context.Context()
    if remote is not None:
        if not remote.trace_flags.sampled:
            return
        parent = trace.set_span_in_context(trace.NonRecordingSpan(remote), parent)
    elif not (may_begin_trace and telemetry.sample()):
        return
    if call.agent:
        attributes = {**attributes, AGENT: call.agent}
    call.span = telemetry.tracer.start_span(
        call.method.lstrip("/"), context=parent, kind=trace.SpanKind.SERVER, attributes=attributes
    )
    # Never detached: each served call runs in a task, and so in a context, of its own.
    otel_context.attach(trace.set_span_in_context(call.span, parent))


def keep_served(
    late: Late,
    call: Call,
    attributes: Mapping[str, str],
    code: grpc.StatusCode,
    seconds: float,
    *,
    may_begin_trace: bool = True,
) -> str:
    """Writes the SERVER span of a call that was not sampled, and has failed or took long; its trace, empty: none was written.

    Its children were told of its caller's span as their parent, and so are its siblings.
    """
    raw = call.first(TRACEPARENT_KEY)
    remote = parse_traceparent(raw) if isinstance(raw, str) else None
    if remote is None and not may_begin_trace:
        return ""
    context = remote or parse_traceparent(call.traceparent)
    assert context is not None
    name = call.method.lstrip("/")
    kept = {**attributes, **({AGENT: call.agent} if call.agent else {})}
    own = remote is None
    return _keep(late, trace.SpanKind.SERVER, name, context, kept, code, seconds, own=own)


def keep_made(
    late: Late,
    method: str,
    traceparent: str,
    attributes: Mapping[str, str],
    code: grpc.StatusCode,
    seconds: float,
    *,
    root: bool,
) -> str:
    """Writes the CLIENT span of a call that was not sampled; see `keep_served`. `root`: whether it began the trace."""
    context = parse_traceparent(traceparent)
    if context is None:
        return ""
    return _keep(late, trace.SpanKind.CLIENT, method, context, attributes, code, seconds, own=root)


def _keep(
    late: Late,
    kind: trace.SpanKind,
    name: str,
    context: trace.SpanContext,
    attributes: Mapping[str, str],
    code: grpc.StatusCode,
    seconds: float,
    *,
    own: bool,
) -> str:
    failed = code in SERVER_FAULTS
    kept = {
        **attributes,
        "rpc.response.status_code": code.name,
        KEPT: "failed" if failed else "slow",
        **({"error.type": code.name} if failed else {}),
    }
    status = trace.Status(trace.StatusCode.ERROR, code.name) if failed else None
    written = late.write(
        name, kind, context, own=own, seconds=seconds, attributes=kept, status=status
    )
    return f"{context.trace_id:032x}" if written else ""


def trace_id_of(span: trace.Span) -> str:
    """The trace of a span, 32 hexadecimal digits."""
    return f"{span.get_span_context().trace_id:032x}"


def end_span(span: trace.Span, code: grpc.StatusCode) -> None:
    """Ends the span of a call with its status."""
    span.set_attribute("rpc.response.status_code", code.name)
    if code is not grpc.StatusCode.OK and code in SERVER_FAULTS:
        span.set_attribute("error.type", code.name)
        span.set_status(trace.Status(trace.StatusCode.ERROR, code.name))
    span.end()
