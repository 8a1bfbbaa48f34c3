"""Messages and what became of them, read from a queue and its archive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from weft.cli import output, payloads

if TYPE_CHECKING:
    from rich.console import Console

    from weft.cli.brokers import Broker
    from weft.v1 import broker_pb2 as pb

_MOST = 3_600.0  # seconds for a replay as a whole
_COLOURS = {"ACKED": "green", "DEAD": "red", "DISCARDED": "red"}


async def replayed(broker: Broker, request: pb.ReplayRequest) -> AsyncIterator[pb.Record]:
    """What a replay streams, oldest first."""
    with broker.told():
        async for page in broker.stub.Replay(request, timeout=_MOST):
            for record in page.records:
                yield record


def outcome(record: pb.Record) -> str:
    """What became of it, in a word."""
    from weft.v1 import broker_pb2

    return broker_pb2.Outcome.Name(record.outcome).removeprefix("OUTCOME_")


async def as_document(record: pb.Record, skills: payloads.Skills) -> dict[str, Any]:
    """A record in ProtoJSON, its payload typed by its method."""
    found = output.as_json(record)
    found["message"] = await payloads.document(record.message, skills)
    return found


async def show(out: Console, record: pb.Record, skills: payloads.Skills) -> None:
    """A record in a line."""
    from rich.text import Text

    message, what = record.message, outcome(record)
    line = Text.assemble(
        (f"{_moment(record.publish_time.ToDatetime(tzinfo=UTC))}  ", "dim"),
        (f"{what.lower():<9}", _COLOURS.get(what, "yellow")),
        (f"{message.topic or message.method.rpartition('/')[2] or '-'}  ", "bold"),
        (f"{message.id}  {message.sender}", "dim"),
        (f"  key {message.key}" if message.key else "", "dim"),
        f"  {payloads.summary(await payloads.document(message, skills))}",
    )
    out.print(line, no_wrap=out.is_terminal, overflow="ellipsis")


def warn_of_types(skills: payloads.Skills) -> None:
    """Says why payloads were shown as bytes, if the registry is the reason."""
    if skills.missing:
        click.echo(f"Payloads are shown in base64: {skills.missing}", err=True)


def _moment(when: datetime) -> str:
    return when.astimezone().strftime("%H:%M:%S.%f")[:-3]
