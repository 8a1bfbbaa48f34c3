"""The span of a request: the SDK's own (GenAI semantic conventions), made where the mesh traces, kept open until it is paid.

The SDK makes one CLIENT span for each request, with model, tokens and stop reason; another one beside it would count
everything twice. It takes a tracer provider, so its spans go where all others go; whether a call is traced is decided
as for every call of the mesh, and what the request cost is added before the span ends.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from opentelemetry import trace
from opentelemetry.util.types import AttributeValue

from weft import rpc
from weft.telemetry import Telemetry

_LAST: ContextVar[list[HeldSpan] | None] = ContextVar("weft_llm_span", default=None)


class HeldSpan(trace.Span):
    """A span that ends when `finish` says so, with the time at which its maker ended it."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._ended: int | None = None

    def finish(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Adds what is known now, and ends."""
        self._span.set_attributes(attributes)
        self._span.end(self._ended)

    def end(self, end_time: int | None = None) -> None:
        """Says when it ended."""
        if self._ended is None:
            self._ended = end_time or time.time_ns()

    def is_recording(self) -> bool:
        """Whether it goes on."""
        return self._ended is None and self._span.is_recording()

    def get_span_context(self) -> trace.SpanContext:
        """Which span it is."""
        return self._span.get_span_context()

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Sets an attribute."""
        self._span.set_attribute(key, value)

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Sets attributes."""
        self._span.set_attributes(attributes)

    def add_event(self, *args: Any, **kwargs: Any) -> None:
        """Adds an event."""
        self._span.add_event(*args, **kwargs)

    def update_name(self, name: str) -> None:
        """Renames it."""
        self._span.update_name(name)

    def set_status(self, *args: Any, **kwargs: Any) -> None:
        """Sets its status."""
        self._span.set_status(*args, **kwargs)

    def record_exception(self, exception: BaseException, *_: Any, **__: Any) -> None:
        """Records the class of an exception: its text may quote the prompt."""
        self._span.set_attribute("error.type", type(exception).__name__)


class Tracers(trace.TracerProvider):
    """What the SDK takes its tracer from."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def get_tracer(self, *_: Any, **__: Any) -> trace.Tracer:
        """A tracer that makes spans of traced calls only."""
        return _Tracer(self._telemetry)


class _Tracer(trace.Tracer):
    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def start_span(self, name: str, *args: Any, **kwargs: Any) -> trace.Span:
        tracer = self._telemetry.tracer
        if tracer is None or not self._sampled():
            return trace.INVALID_SPAN
        held = HeldSpan(tracer.start_span(name, *args, **kwargs))
        made = _LAST.get()
        if made is not None:
            made.append(held)
        return held

    def start_as_current_span(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("the SDK's spans of requests are never current")

    def _sampled(self) -> bool:
        active = trace.get_current_span().get_span_context()
        if active.is_valid:
            return active.trace_flags.sampled
        return rpc.current_call() is None and self._telemetry.sample()


class Spans:
    """The spans of one request: `watch` before it is made, `finish` when it is paid."""

    def __init__(self) -> None:
        self._made: list[HeldSpan] = []

    def watch(self) -> None:
        """Spans that this task makes from now on are of this request."""
        _LAST.set(self._made)

    def finish(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Ends them."""
        for span in self._made:
            span.finish(attributes)
        self._made.clear()
