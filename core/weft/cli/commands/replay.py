"""`weft replay`: messages of the past, shown or sent once more."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from weft.cli import brokers, output
from weft.cli.brokers import complete_queue
from weft.cli.options import configured, examples, json_option
from weft.cli.spans import MOMENT

if TYPE_CHECKING:
    from weft.config import Settings
    from weft.v1 import broker_pb2 as pb
    from weft.v1.message_pb2 import Message

_OUTCOMES = ("live", "acked", "dead", "discarded", "purged")
_AT_ONCE = 500  # messages published between two looks at the answers
_MOST_ID = 128
_FILTERS = (
    *("id", "key", "sender", "method", "topic", "correlation_id", "conversation"),
    *("from_time", "to_time"),
)


@click.command(
    epilog=examples(
        "weft replay orders --from 1h",
        "weft replay orders --key customer-7 --outcome dead --json",
        "weft replay orders --from 2030-01-31T12:00 --until 2030-01-31T13:00 --to orders-test",
    )
)
@click.argument("queue", metavar="QUEUE", shell_complete=complete_queue)
@click.option("--from", "from_time", type=MOMENT, metavar="WHEN", help="Since: 1h ago, a date.")
@click.option("--until", "to_time", type=MOMENT, metavar="WHEN", help="Before.")
@click.option("--id", "id", default="", metavar="ID", help="With this id.")
@click.option("--key", default="", metavar="KEY", help="With this key.")
@click.option("--sender", default="", metavar="NAME", help="From this sender.")
@click.option("--method", default="", metavar="PATH", help="For this method, such as /a.B/C.")
@click.option("--topic", default="", metavar="TOPIC", help="Of this topic.")
@click.option("--correlation-id", default="", metavar="ID", help="With this correlation id.")
@click.option("--conversation", default="", metavar="ID", help="Of this conversation.")
@click.option("--outcome", type=click.Choice(_OUTCOMES), help="That became this.")
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@click.option(
    "--to",
    default="",
    metavar="QUEUE",
    shell_complete=complete_queue,
    help="Publish them to this queue instead of showing them.",
)
@click.option(
    "--keep-ids", is_flag=True, help="With --to: their former ids, known ones are dropped."
)
@configured("broker", "registry")
@json_option
def replay(
    *,
    settings: Settings,
    queue: str,
    outcome: str | None,
    limit: int | None,
    to: str,
    keep_ids: bool,
    as_json: bool,
    **conditions: Any,
) -> None:
    """Show messages that are in a queue or its archive, oldest first, or publish them again.

    Nothing is moved or acknowledged by it. With --to they are published as new messages, with their order
    and keys, without their times.
    """
    from weft.cli import connect

    if keep_ids and not to:
        raise click.UsageError("--keep-ids belongs to --to.")
    request = _request(queue, conditions, outcome, limit)
    work = (
        _republish(settings, request, to, keep_ids=keep_ids, as_json=as_json)
        if to
        else _show(settings, request, as_json=as_json)
    )
    connect.run(work)


def _request(
    queue: str, conditions: dict[str, Any], outcome: str | None, limit: int | None
) -> pb.ReplayRequest:
    from weft.v1 import broker_pb2

    request = broker_pb2.ReplayRequest(queue=queue, limit=limit or 0)
    for name in _FILTERS:
        value = conditions[name]
        if isinstance(value, datetime):
            getattr(request.filter, name).FromDatetime(value)
        elif value:
            setattr(request.filter, name, value)
    if outcome is not None:
        request.filter.outcome = broker_pb2.Outcome.Value(f"OUTCOME_{outcome.upper()}")
    return request


async def _records(broker: brokers.Broker, request: pb.ReplayRequest) -> AsyncIterator[pb.Record]:
    from weft.cli import records

    await broker.queue(request.queue)  # says what is similar
    async for record in records.replayed(broker, request):
        yield record


async def _show(settings: Settings, request: pb.ReplayRequest, *, as_json: bool) -> None:
    from weft.cli import records
    from weft.cli.payloads import Skills

    skills, out = Skills(settings.registry), output.console()
    count = 0
    async with brokers.connected(settings.broker) as broker:
        async for record in _records(broker, request):
            count += 1
            if as_json:
                output.print_line(await records.as_document(record, skills))
            else:
                await records.show(out, record, skills)
    if not count and not as_json:
        click.echo("There is no such message.")
    records.warn_of_types(skills)


async def _republish(
    settings: Settings, request: pb.ReplayRequest, to: str, *, keep_ids: bool, as_json: bool
) -> None:
    from weft.agents.messaging import Publisher
    from weft.cli import identities
    from weft.cli.progress import Counting

    renew = identities.renewing(settings)
    run = "" if keep_ids else f"~{secrets.token_hex(4)}"
    receipts = []
    stored = 0
    async with brokers.connected(settings.broker) as broker:
        await broker.queue(to)
        async with Publisher(
            broker.addresses, sender=brokers.sender(), mtls=broker.mtls
        ) as publisher:
            with Counting("published") as counting:
                async for record in _records(broker, request):
                    message = _again(record.message, to, run)
                    if message.HasField("identity"):
                        message.identity.CopyFrom(renew(message.identity))
                    receipts.append(publisher.publish_nowait(message))
                    if len(receipts) >= _AT_ONCE:
                        stored += sum([not (await one).duplicate for one in receipts])
                        receipts.clear()
                        counting.show(stored)
                stored += sum([not (await one).duplicate for one in receipts])
    if as_json:
        output.print_json({"published": stored, "to": to})
    else:
        click.echo(f"{stored} messages are published to {to}.")


def _again(message: Message, to: str, run: str) -> Message:
    """The same content as a new message: whoever handles each id once shall handle this one too."""
    message.recipient, message.topic = to, ""
    message.id = f"{message.id[: _MOST_ID - len(run)]}{run}"
    message.ClearField("not_before")
    message.ClearField("expire_time")
    return message
