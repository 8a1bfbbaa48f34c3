"""How uses of tools are seen: a metric and, where the call is traced, a span (OpenTelemetry GenAI conventions)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import grpc
from opentelemetry import trace

from weft.agents.tools.tool import Tool
from weft.rpc.status import SERVER_FAULTS
from weft.telemetry import Telemetry

Record = Callable[[grpc.StatusCode, float], None]


class Watch:
    """Sees uses.

    Args:
        telemetry: where; None: nowhere.
    """

    def __init__(self, telemetry: Telemetry | None = None) -> None:
        self._telemetry = telemetry
        self._records: dict[str, Record] = {}

    @contextlib.contextmanager
    def span(self, tool: Tool) -> Iterator[None]:
        """A span around a use, where what it is done for is traced."""
        tracer = self._telemetry.tracer if self._telemetry else None
        outer = trace.get_current_span().get_span_context()
        if tracer is None or not (outer.is_valid and outer.trace_flags.sampled):
            yield
            return
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": tool.name,
            "gen_ai.tool.type": "function",
        }
        with tracer.start_as_current_span(
            f"execute_tool {tool.name}",
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ):
            yield

    def ended(self, tool: Tool, code: grpc.StatusCode, seconds: float, reason: str) -> None:
        """A use has ended."""
        span = trace.get_current_span()
        if span.is_recording() and code is not grpc.StatusCode.OK:
            span.set_attribute("error.type", reason or code.name)
            if code in SERVER_FAULTS:
                span.set_status(trace.Status(trace.StatusCode.ERROR, code.name))
        if self._telemetry is None:
            return
        record = self._records.get(tool.name)
        if record is None:
            record = self._records[tool.name] = self._telemetry.metrics.tool_use(tool.name)
        record(code, seconds)

    def kept(self, tool: Tool, *, hit: bool) -> None:
        """A result that may have been kept was looked for."""
        if self._telemetry is not None:
            outcome = "hit" if hit else "miss"
            self._telemetry.metrics.tools_kept.labels(tool.name, outcome).inc()
