"""What needs no mesh: reading requests, drawing traces, words for times."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf import struct_pb2
from rich.columns import Columns
from rich.console import Console
from rich.text import Text

from weft.cli import documents, output, waterfall
from weft.cli.template import render
from weft.v1 import options_pb2, trace_pb2


def test_a_text_gives_the_terminal_no_orders() -> None:
    shown = io.StringIO()
    out = output.console(shown)
    for each in (Text("a\x1b]0;b\x07 \x1b[2Jc\x9b2Jd\te"), "a\x1b]0;b\x07 \x1b[2Jc\x9b2Jd\te"):
        out.print(each)
        out.print(Columns([each]))
    assert shown.getvalue().split() == ["a]0;b", "[2Jc2Jd", "e"] * 4


def span(
    name: str, span_id: str, parent: str, start: int, length: int, error: str = ""
) -> trace_pb2.Span:
    found = trace_pb2.Span(
        name=name,
        span_id=span_id,
        parent_span_id=parent,
        service="agents",
        error=bool(error),
        status_message=error,
    )
    found.start_time.FromNanoseconds(start * 1_000_000)
    found.duration.FromNanoseconds(length * 1_000_000)
    return found


SPANS = [
    span("a.Root/Call", "1", "", 0, 100),
    span("a.Late/Call", "3", "1", 60, 40, error="UNAVAILABLE"),
    span("a.Early/Call", "2", "1", 0, 50),
    span("a.Inner/Call", "4", "2", 10, 10),
]


def test_a_tree_is_in_the_order_of_time():
    found = [(line.span.name, line.depth) for line in waterfall.lines(SPANS)]
    assert found == [
        ("a.Root/Call", 0),
        ("a.Early/Call", 1),
        ("a.Inner/Call", 2),
        ("a.Late/Call", 1),
    ]


def test_spans_with_no_parent_are_at_the_top():
    assert waterfall.top(SPANS) == SPANS[:1]
    assert waterfall.top(SPANS[1:]) == SPANS[1:3]


def test_a_trace_is_whole_with_its_beginning_and_both_sides_of_every_call():
    assert waterfall.is_whole(SPANS)
    assert not waterfall.is_whole(SPANS[1:])
    assert not waterfall.is_whole([])
    caller = span("a.Far/Call", "5", "1", 70, 10)
    caller.kind = "CLIENT"
    assert not waterfall.is_whole([*SPANS, caller])
    assert waterfall.is_whole([*SPANS, caller, span("a.Far/Call", "6", "5", 72, 5)])


def test_a_waterfall_shows_place_length_and_error():
    out = io.StringIO()
    waterfall.show(Console(file=out, width=120), SPANS)
    lines = out.getvalue().splitlines()
    assert lines[1].count("█") == 32
    assert lines[2].count("█") == 16
    late = next(line for line in lines if "Late/Call" in line)
    assert "UNAVAILABLE" in late
    assert late.rstrip().endswith("█")


def test_a_template_knows_maps_choices_and_what_holds_itself():
    template = render(struct_pb2.Value.DESCRIPTOR)
    assert '"nullValue": "NULL_VALUE",  // NULL_VALUE, one of kind' in template
    assert '//   "numberValue": 0.0,  // double, one of kind' in template
    assert render(struct_pb2.Struct.DESCRIPTOR).splitlines() == [
        "{",
        '  "fields": {}  // map of string to any value',
        "}",
    ]
    options = render(options_pb2.SkillOptions.DESCRIPTOR)
    assert '"tags": [],  // list of string' in options
    assert '"defaultTimeout": "1.5s",  // duration in seconds' in options
    assert list(documents.read(template)) == [{"nullValue": "NULL_VALUE"}]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("{} []", [{}, []]),
        ('{"a": "// no comment", }', [{"a": "// no comment"}]),
        ('{"a": 1, // comment, with "quotes"\n}', [{"a": 1}]),
        ('[1, 2,\n]\n"x"', [[1, 2], "x"]),
        (r'{"a": "\"}, ,]"}', [{"a": '"}, ,]'}]),
    ],
)
def test_documents(text: str, found: list[object]):
    assert list(documents.read(text)) == found


def test_what_is_no_document_is_placed():
    with pytest.raises(ValueError, match="line 2, column 7"):
        list(documents.read('{}\n {"a" 1}'))


@pytest.mark.parametrize(
    ("span", "long", "short"),
    [
        (timedelta(milliseconds=3.21), "0s", "3.2 ms"),
        (timedelta(milliseconds=412), "0s", "412 ms"),
        (timedelta(seconds=42), "42s", "42.00 s"),
        (timedelta(minutes=3, seconds=5), "3m 5s", "185.00 s"),
        (timedelta(hours=2, minutes=1), "2h 1m", "7260.00 s"),
        (timedelta(days=4, hours=3), "4d 3h", "356400.00 s"),
    ],
)
def test_durations(span: timedelta, long: str, short: str):
    assert output.age(span) == long
    assert output.milliseconds(span) == short


def test_due_times_look_both_ways():
    now = datetime.now(UTC)
    assert output.until(now + timedelta(hours=2, seconds=1)) == "in 2h 0m"
    assert output.until(now - timedelta(minutes=5, seconds=1)).endswith("late")
