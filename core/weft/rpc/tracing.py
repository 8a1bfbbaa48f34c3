"""Spans of served calls. Whether a call is traced is decided before anything is made for it.

What a caller decided is kept (W3C Trace Context, sampled flag). opentelemetry-instrumentation-grpc decides inside
its interceptors, whose wrappers are paid for by calls that are not sampled too, and its client never ends the span
of a call that is cancelled; here an unsampled call costs one look at its metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import grpc
from opentelemetry import context as otel_context
from opentelemetry import trace

from weft.rpc.call import TRACEPARENT_KEY, Call, parse_traceparent
from weft.rpc.status import SERVER_FAULTS
from weft.telemetry import SecureReceiver, Telemetry

if TYPE_CHECKING:
    from weft.mtls import Credentials

# One process serves many agents, so service.name of the resource does not tell which one it was.
AGENT = "weft.agent"


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


def end_span(span: trace.Span, code: grpc.StatusCode) -> None:
    """Ends the span of a call with its status."""
    span.set_attribute("rpc.response.status_code", code.name)
    if code is not grpc.StatusCode.OK and code in SERVER_FAULTS:
        span.set_status(trace.Status(trace.StatusCode.ERROR, code.name))
    span.end()


def span_receiver(registry: str, mtls: Credentials | None) -> str | SecureReceiver:
    """The registry as a receiver of spans."""
    if mtls is None:
        return registry
    return SecureReceiver(
        address=registry,
        generation=lambda: mtls.generation,
        dial=lambda: mtls.channel(registry, "registry"),
    )
