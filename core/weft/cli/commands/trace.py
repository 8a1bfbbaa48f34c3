"""`weft trace`: what took how long."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

import click

from weft.cli import output
from weft.cli.options import configured, examples, json_option

if TYPE_CHECKING:
    from weft.config import Settings
    from weft.v1 import trace_pb2

_WAIT = 5.0  # seconds; spans are sent twice a second


@click.command(
    epilog=examples(
        "weft trace",
        "weft trace 4bf92f3577b34da6a3ce929d0e0e4736 --wait",
    )
)
@click.argument("trace_id", required=False, metavar="[ID]")
@click.option("--wait", is_flag=True, help="Wait up to 5 s until all spans have come in.")
@click.option("--limit", default=20, show_default=True, help="How many traces to list.")
@configured("registry")
@json_option
def trace(
    *, settings: Settings, trace_id: str | None, wait: bool, limit: int, as_json: bool
) -> None:
    """List recent traces, or show the waterfall of one.

    ID is 32 hexadecimal digits: `weft ask` prints it, the gateway sends it as `traceparent`, every log
    line has it. Traces are kept in the registry's memory, the newest 2,000.
    """
    from weft.cli import connect, traced

    if trace_id is None:
        found = connect.run(traced.recent(settings.registry, limit))
        if as_json:
            output.print_json([output.as_json(summary) for summary in found])
        else:
            _show_list(found)
        return
    spans = connect.run(traced.spans(settings.registry, trace_id.lower(), _WAIT if wait else 0))
    if as_json:
        output.print_json([output.as_json(span) for span in spans])
        return
    from weft.cli import waterfall

    waterfall.show(output.console(), spans)


def _show_list(found: list[trace_pb2.TraceSummary]) -> None:
    output.print_table(
        ["TRACE", "STARTED", "FIRST SPAN", ">SPANS", ">TIME", ""],
        [
            [
                summary.trace_id,
                output.moment(summary.start_time.ToDatetime(tzinfo=UTC)),
                summary.name,
                str(summary.span_count),
                output.milliseconds(summary.duration.ToTimedelta()),
                output.state("FAILED") if summary.error else "",
            ]
            for summary in found
        ],
        "No trace yet. Ask something: weft ask 'Where is my card?'",
    )
