"""A trace as a tree of bars on one time line."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from weft.cli import output
from weft.v1 import trace_pb2

if TYPE_CHECKING:
    from rich.console import Console

_BAR = 32  # characters, less on a narrow terminal
_BESIDE = 62  # characters of a line that are not for the bar
_CALLS = "→ "  # before what a caller saw, as opposed to who served it
_BLOCK = "█"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A span at its place in the tree. `depth`: how many of its ancestors are in the trace."""

    span: trace_pb2.Span
    depth: int


def lines(spans: Sequence[trace_pb2.Span]) -> list[Line]:
    """Spans in the order of a tree, siblings by their start. A span whose parent is missing is a root."""
    known = {span.span_id for span in spans}
    children: dict[str, list[trace_pb2.Span]] = defaultdict(list)
    for span in sorted(spans, key=_start):
        children[span.parent_span_id if span.parent_span_id in known else ""].append(span)

    def visit(parent: str, depth: int) -> Iterator[Line]:
        for span in children[parent]:
            yield Line(span=span, depth=depth)
            yield from visit(span.span_id, depth + 1)

    return list(visit("", 0))


def top(spans: Sequence[trace_pb2.Span]) -> list[trace_pb2.Span]:
    """Spans whose parent is not there.

    One whose parent id is empty began the trace. Of another the parent is still to come, or was never ours:
    a caller outside began the trace.
    """
    known = {span.span_id for span in spans}
    return [span for span in spans if span.parent_span_id not in known]


def is_whole(spans: Sequence[trace_pb2.Span]) -> bool:
    """Whether the span that began the trace is there, and of every call both sides."""
    parents = {span.parent_span_id for span in spans}
    answered = all(span.kind != "CLIENT" or span.span_id in parents for span in spans)
    return answered and [span.parent_span_id for span in top(spans)] == [""]


def show(out: Console, spans: Sequence[trace_pb2.Span]) -> None:
    """Prints the waterfall."""
    from rich.table import Table
    from rich.text import Text

    begin = min(_start(span) for span in spans)
    whole = max(1, max(_start(span) + _length(span) for span in spans) - begin)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(
        "SPAN", overflow="ellipsis", no_wrap=True, ratio=1 if out.is_terminal else None
    )
    table.add_column("SERVICE", no_wrap=True)
    table.add_column("TIME", justify="right", no_wrap=True)
    width = max(_BAR // 4, min(_BAR, out.width - _BESIDE))
    table.add_column("", no_wrap=True, min_width=width)
    for line in lines(spans):
        span = line.span
        style = "red" if span.error else ""
        before = width * (_start(span) - begin) // whole
        length = max(1, round(width * _length(span) / whole))
        bar = " " * min(before, width - 1) + _BLOCK * min(length, width - before)
        arrow = _CALLS if span.kind == "CLIENT" else ""
        name = Text("  " * line.depth + arrow + _short(span), style=style)
        if span.error:
            name.append(f"  {span.status_message}")
        took = output.milliseconds(timedelta(microseconds=_length(span) / 1_000))
        table.add_row(name, span.service, took, Text(bar, style=style or _colour(span)))
    out.print(table)


def _short(span: trace_pb2.Span) -> str:
    """The name without its package: "TriageService/Classify"."""
    service, slash, method = span.name.rpartition("/")
    return f"{service.rpartition('.')[2]}{slash}{method}"


def _colour(span: trace_pb2.Span) -> str:
    return "blue" if span.kind == "CLIENT" else "cyan"


def _start(span: trace_pb2.Span) -> int:
    return span.start_time.ToNanoseconds()


def _length(span: trace_pb2.Span) -> int:
    return span.duration.ToNanoseconds()
