"""`weft tail`: new messages of a queue or topic as they come."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from weft.cli import brokers, failures, output
from weft.cli.brokers import complete_queue
from weft.cli.options import configured, examples, json_option
from weft.cli.spans import MOMENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weft.cli.brokers import Broker
    from weft.config import Settings
    from weft.v1 import broker_pb2 as pb

_LOOK = 0.5  # seconds between looks
# The clocks of brokers may differ by so much: a message that comes late is older than one that was seen.
_OVERLAP = timedelta(seconds=5)
_TOPIC_QUEUES = "_topics.*"

Identity = tuple[str, str, str, int]


@click.command(
    epilog=examples(
        "weft tail support-triage", "weft tail 'orders.>'", "weft tail orders --since 10m --json"
    )
)
@click.argument("name", metavar="QUEUE|TOPIC", shell_complete=complete_queue)
@click.option("--since", type=MOMENT, metavar="WHEN", help="Begin there: 10m ago, a date.")
@click.option("--limit", type=click.IntRange(1), help="End after so many messages.")
@configured("broker", "registry")
@json_option
def tail(
    *,
    settings: Settings,
    name: str,
    since: datetime | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Show new messages of a queue as they are accepted, without consuming them. Ctrl-C ends.

    What is not the name of a queue is a topic, with `*` for one word and `>` for the rest. Messages that
    were handled already are found in the archive: a broker without PostgreSQL shows only what still waits.
    """
    from weft.cli import connect

    begin = since or datetime.now(UTC)
    connect.run(_run(settings, name, begin, limit, as_json=as_json))


async def _run(
    settings: Settings, name: str, begin: datetime, limit: int | None, *, as_json: bool
) -> None:
    from weft.cli import records
    from weft.cli.payloads import Skills

    skills = Skills(settings.registry)
    out = output.console()
    left = limit
    async with brokers.connected(settings.broker) as broker:
        tailed = await _tailed(broker, name, begin)
        while left is None or left > 0:
            for record in (await tailed.look(broker))[:left]:
                if as_json or not out.is_terminal:
                    output.print_line(await records.as_document(record, skills))
                else:
                    await records.show(out, record, skills)
                left = None if left is None else left - 1
            if left != 0:
                await asyncio.sleep(_LOOK)
    records.warn_of_types(skills)


async def _tailed(broker: Broker, name: str, begin: datetime) -> _Tailed:
    from weft.broker.topics.patterns import check_pattern
    from weft.rpc import InvalidArgument

    names = {one.queue for one in await broker.queues()}
    if name in names:
        return _Tailed([name], "", begin)
    try:
        check_pattern(name, "topic")
    except InvalidArgument as failed:
        hint = failures.nearest(name, names)
        raise failures.Failure(f"{name!r} is neither a queue nor a topic.{hint}") from failed
    topics = [one.queue for one in await broker.queues(_TOPIC_QUEUES)]
    if not {"*", ">", "."} & set(name):
        click.echo(f"There is no queue {name!r}: following the topic.", err=True)
    return _Tailed(topics, name, begin)


class _Tailed:
    """What was seen of some queues."""

    def __init__(self, queues: Sequence[str], topic: str, begin: datetime) -> None:
        from weft.broker.topics.patterns import Patterns

        self._queues = queues
        self._pattern: Patterns[bool] = Patterns()
        if topic:
            self._pattern.add(topic, value=True)
        self._topic = topic
        self._begin = begin
        self._latest = begin
        self._seen: dict[Identity, datetime] = {}

    async def look(self, broker: Broker) -> list[pb.Record]:
        """What is new, oldest first."""
        pages = await asyncio.gather(*(self._new(broker, queue) for queue in self._queues))
        found = sorted(
            (record for page in pages for record in page),
            key=lambda record: record.publish_time.ToNanoseconds(),
        )
        border = self._latest - _OVERLAP
        self._seen = {one: when for one, when in self._seen.items() if when >= border}
        return found

    async def _new(self, broker: Broker, queue: str) -> list[pb.Record]:
        from weft.cli import records
        from weft.v1 import broker_pb2

        request = broker_pb2.ReplayRequest(queue=queue)
        since = max(self._begin, self._latest - _OVERLAP)
        request.filter.from_time.FromDatetime(since)
        found = []
        async for record in records.replayed(broker, request):
            when = record.publish_time.ToDatetime(tzinfo=UTC)
            message = record.message
            identity = (queue, message.sender, message.id, record.publish_time.ToNanoseconds())
            if identity in self._seen or not self._wanted(message.topic):
                continue
            self._seen[identity] = when
            self._latest = max(self._latest, when)
            found.append(record)
        return found

    def _wanted(self, topic: str) -> bool:
        return not self._topic or bool(self._pattern.matching(topic))
