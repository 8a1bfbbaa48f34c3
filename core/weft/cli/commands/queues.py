"""`weft queues`: what waits, who consumes it, and the policy of each queue."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from weft.cli import brokers, output
from weft.cli.brokers import complete_queue
from weft.cli.options import configured, examples, json_option
from weft.cli.spans import SPAN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table
    from rich.text import Text

    from weft.config import Settings
    from weft.v1 import broker_pb2 as pb
    from weft.v1.message_pb2 import QueuePolicy

_REFRESH = 1.0  # seconds
_DURABILITIES = ("default", "memory", "durable", "replicated")
_HEADERS = (
    *("QUEUE", "STATE", ">READY", ">DELAYED", ">IN HAND", ">DEAD", ">OLDEST"),
    *(">IN/S", ">OUT/S", ">CONSUMERS"),
)
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_UNIT = 1024

_queue_argument = click.argument("queue", metavar="QUEUE", shell_complete=complete_queue)


class _Queues(click.Group):
    """`weft queues NAME` is `weft queues show NAME`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands and not args[0].startswith("-"):
            args = ["show", *args]
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Queues,
    invoke_without_command=True,
    epilog=examples(
        "weft queues",
        "weft queues --pattern 'support-*' --once",
        "weft queues support-triage",
        "weft queues set orders --max-attempts 5 --visibility-timeout 2m",
        "weft queues pause orders",
    ),
)
@click.option("--pattern", default="", metavar="NAME", help='Only these; "*" is any characters.')
@click.option("--once", is_flag=True, help="Print the table once, also on a terminal.")
@configured("broker")
@json_option
@click.pass_context
def queues(
    ctx: click.Context, *, settings: Settings, pattern: str, once: bool, as_json: bool
) -> None:
    """Show all queues, live on a terminal; with a name, one of them."""
    from weft.cli import connect

    if ctx.invoked_subcommand is not None:
        return
    live = sys.stdout.isatty() and not once and not as_json
    connect.run(_live(settings, pattern) if live else _once(settings, pattern, as_json=as_json))


@queues.command(
    epilog=examples("weft queues show support-triage", "weft queues show orders --json")
)
@_queue_argument
@configured("broker")
@json_option
def show(*, settings: Settings, queue: str, as_json: bool) -> None:
    """Show a queue with its policy and consumers."""
    from weft.cli import connect

    async def ask() -> pb.QueueStatus:
        async with brokers.connected(settings.broker) as broker:
            return await broker.queue(queue)

    status = connect.run(ask())
    if as_json:
        output.print_json(output.as_json(status))
    else:
        _show(status)


@queues.command(
    name="set",
    epilog=examples(
        "weft queues set orders --max-attempts 5 --visibility-timeout 2m",
        "weft queues set orders --publish-rate 100 --publish-burst 500",
        "weft queues set scratch --durability memory --retention 0",
    ),
)
@_queue_argument
@click.option("--visibility-timeout", type=SPAN, metavar="SPAN", help="Lease of a consumer.")
@click.option("--max-attempts", type=click.IntRange(1, 1_000), help="Deliveries before it is dead.")
@click.option("--backoff", type=SPAN, metavar="SPAN", help="Pause before the second attempt.")
@click.option("--max-backoff", type=SPAN, metavar="SPAN", help="Longest pause.")
@click.option("--max-depth", type=click.IntRange(1), help="Most messages kept.")
@click.option("--max-bytes", type=click.IntRange(1), help="Most bytes kept.")
@click.option("--dedupe-window", type=SPAN, metavar="SPAN", help="Memory of ids; 0: none.")
@click.option("--durability", type=click.Choice(_DURABILITIES), help="What a publish survives.")
@click.option("--publish-rate", type=float, metavar="N", help="Messages a second; 0: no limit.")
@click.option("--publish-burst", type=click.IntRange(1), help="At once; by default a second's.")
@click.option("--retention", type=SPAN, metavar="SPAN", help="Time in the archive; 0: none.")
@click.option("--time-to-live", type=SPAN, metavar="SPAN", help="Longest wait; 0: for ever.")
@click.option("--dead-key", type=click.Choice(("skip", "block")), help="Further ones of its key.")
@configured("broker")
@json_option
def set_(*, settings: Settings, queue: str, as_json: bool, **fields: Any) -> None:
    """Make a queue, or change the parts of its policy that are named."""
    from weft.cli import connect

    policy, paths = _policy(fields)
    status = connect.run(_set(settings, queue, policy, paths))
    if as_json:
        output.print_json(output.as_json(status))
    else:
        _show(status)


@queues.command(epilog=examples("weft queues pause orders"))
@_queue_argument
@configured("broker")
def pause(*, settings: Settings, queue: str) -> None:
    """Stop deliveries; publishes go on."""
    from weft.v1 import broker_pb2

    _call(settings, "PauseQueue", broker_pb2.PauseQueueRequest(queue=queue))
    click.echo(f"{queue} is paused. `weft queues resume {queue}` goes on.")


@queues.command(epilog=examples("weft queues resume orders"))
@_queue_argument
@configured("broker")
def resume(*, settings: Settings, queue: str) -> None:
    """Go on with deliveries."""
    from weft.v1 import broker_pb2

    _call(settings, "ResumeQueue", broker_pb2.ResumeQueueRequest(queue=queue))
    click.echo(f"{queue} goes on.")


@queues.command(epilog=examples("weft queues purge orders --yes"))
@_queue_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@configured("broker")
def purge(*, settings: Settings, queue: str, yes: bool) -> None:
    """Drop all messages that nobody has in hand."""
    from weft.v1 import broker_pb2

    if not yes:
        click.confirm(f"Drop all messages that wait in {queue}?", abort=True, err=True)
    answer = _call(settings, "PurgeQueue", broker_pb2.PurgeQueueRequest(queue=queue))
    click.echo(f"{answer.purged} messages of {queue} are dropped.")


@queues.command(epilog=examples("weft queues delete orders --yes"))
@_queue_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@configured("broker")
def delete(*, settings: Settings, queue: str, yes: bool) -> None:
    """Remove a queue with all its messages; archived ones stay."""
    from weft.v1 import broker_pb2

    if not yes:
        click.confirm(f"Remove {queue} with all its messages?", abort=True, err=True)
    answer = _call(settings, "DeleteQueue", broker_pb2.DeleteQueueRequest(queue=queue))
    click.echo(f"{queue} is removed, and {answer.dropped} messages with it.")


def _call(settings: Settings, method: str, request: Any) -> Any:
    from weft.cli import connect

    async def ask() -> Any:
        async with brokers.connected(settings.broker) as broker:
            await broker.queue(request.queue)  # says what is similar
            return await broker.call(method, request)

    return connect.run(ask())


def _policy(fields: dict[str, Any]) -> tuple[QueuePolicy, list[str]]:
    """A policy of the options given, and which fields those are."""
    from weft.v1 import message_pb2

    policy = message_pb2.QueuePolicy()
    rate, burst = fields.pop("publish_rate"), fields.pop("publish_burst")
    given = {name: value for name, value in fields.items() if value is not None}
    for name, value in given.items():
        if isinstance(value, timedelta):
            if value or name != "time_to_live":
                getattr(policy, name).FromTimedelta(value)
        elif name == "durability":
            word = "UNSPECIFIED" if value == "default" else value.upper()
            policy.durability = message_pb2.Durability.Value(f"DURABILITY_{word}")
        elif name == "dead_key":
            policy.dead_key = message_pb2.DeadKeyPolicy.Value(f"DEAD_KEY_POLICY_{value.upper()}")
        else:
            setattr(policy, name, value)
    if rate is None and burst is not None:
        raise click.UsageError("--publish-burst belongs to a --publish-rate.")
    if rate:
        policy.publish_rate.per_second = rate
        policy.publish_rate.burst = burst or max(1, int(rate))
    return policy, [*given, *(() if rate is None else ("publish_rate",))]


async def _set(
    settings: Settings, queue: str, policy: QueuePolicy, paths: Sequence[str]
) -> pb.QueueStatus:
    from weft import rpc
    from weft.v1 import broker_pb2

    request = broker_pb2.SetQueueRequest(queue=queue, policy=policy)
    request.update_mask.paths.extend(paths)
    async with brokers.connected(settings.broker) as broker:
        describe = broker_pb2.DescribeRequest(queue=queue)
        with contextlib.suppress(rpc.NotFound):
            found = await broker.call("Describe", describe)
            if not paths:  # a request without fields would give it the defaults
                status: pb.QueueStatus = found.status
                return status
        await broker.call("SetQueue", request)
        return await broker.queue(queue)


# -- showing


async def _once(settings: Settings, pattern: str, *, as_json: bool) -> None:
    async with brokers.connected(settings.broker) as broker:
        found = await broker.queues(pattern)
    if as_json:
        output.print_json([output.as_json(one) for one in found])
    else:
        output.print_table(_HEADERS, map(_row, found), "There is no queue yet.")


async def _live(settings: Settings, pattern: str) -> None:
    """A table that follows, until it is interrupted."""
    from rich.live import Live

    with Live(console=output.console(), auto_refresh=False) as live:
        async with brokers.connected(settings.broker) as broker:
            while True:
                live.update(_table(await broker.queues(pattern)), refresh=True)
                await asyncio.sleep(_REFRESH)


def _table(found: Sequence[pb.QueueStatus]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", caption="Ctrl-C ends")
    for header in _HEADERS:
        right = header.startswith(">")
        table.add_column(header.lstrip(">"), justify="right" if right else "left", overflow="fold")
    for one in found:
        table.add_row(*_row(one))
    return table


def _row(one: pb.QueueStatus) -> list[str | Text]:
    return [
        one.queue,
        output.state(_state(one)),
        f"{_ready(one):,}",
        f"{one.delayed:,}",
        f"{one.pending:,}",
        _alarming(one.dead),
        output.age(one.oldest_age.ToTimedelta()) if one.HasField("oldest_age") else "",
        f"{one.publish_rate:,.1f}" if one.publish_rate else "",
        f"{one.ack_rate:,.1f}" if one.ack_rate else "",
        f"{len(one.consumers)}",
    ]


def _ready(one: pb.QueueStatus) -> int:
    return max(0, one.depth - one.delayed - one.pending - one.blocked)


def _state(one: pb.QueueStatus) -> str:
    if one.data_loss:
        return "data lost"
    if one.paused:
        return "paused"
    return "ok" if one.consumers or not one.depth else "no consumer"


def _alarming(count: int) -> Text:
    from rich.text import Text

    return Text(f"{count:,}", style="red" if count else "")


def _show(one: pb.QueueStatus) -> None:
    facts = {
        "queue": one.queue,
        "state": _state(one),
        "lost": one.data_loss,
        "messages": f"{one.depth:,} of {_size(one.bytes)}: {_ready(one):,} ready, {one.delayed:,} delayed, "
        f"{one.pending:,} in hand, {one.blocked:,} behind their key",
        "oldest": output.age(one.oldest_age.ToTimedelta()) if one.HasField("oldest_age") else "",
        "dead": f"{one.dead:,}" + (f"; `weft dead list {one.queue}`" if one.dead else ""),
        "accepted": f"{one.published:,}, {one.publish_rate:,.1f} a second",
        "handled": f"{one.acked:,}, {one.ack_rate:,.1f} a second",
    }
    out = output.console()
    for name, value in facts.items():
        if value:
            out.print(f"{name:<20}{value}")
    out.print()
    for name, value in _policy_facts(one).items():
        out.print(f"{name:<20}{value}")
    if one.consumers:
        out.print()
        output.print_table(
            ["CONSUMER", "BROKER", ">IN HAND", ">CREDIT"],
            [[c.consumer, c.broker, f"{c.pending:,}", f"{c.credit:,}"] for c in one.consumers],
            "",
        )


def _policy_facts(one: pb.QueueStatus) -> dict[str, str]:
    from google.protobuf.duration_pb2 import Duration

    from weft.v1 import message_pb2

    facts = {}
    for field, value in one.policy.ListFields():
        name = field.name.replace("_", " ")
        if isinstance(value, Duration):
            facts[name] = _exact(value.ToTimedelta())
        elif isinstance(value, message_pb2.RateLimit):
            facts[name] = f"{value.per_second:g} a second, {value.burst:,} at once"
        elif field.enum_type is not None:
            facts[name] = field.enum_type.values_by_number[value].name.rpartition("_")[2].lower()
        elif field.name == "max_bytes":
            facts[name] = _size(value)
        else:
            facts[name] = f"{value:,}"
    return facts


def _size(count: float) -> str:
    for unit in _UNITS:
        if count < _UNIT or unit == _UNITS[-1]:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= _UNIT
    raise AssertionError


def _exact(span: timedelta) -> str:
    return output.age(span) if span >= timedelta(seconds=1) else output.milliseconds(span)
