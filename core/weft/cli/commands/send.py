"""`weft send`: a durable message to an agent, a queue or a topic."""

from __future__ import annotations

import json
import sys
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from weft.cli import brokers, complete, failures, output
from weft.cli.options import configured, examples, json_option
from weft.cli.spans import SPAN

if TYPE_CHECKING:
    from weft.cli.catalog import Skill
    from weft.config import Settings
    from weft.v1.message_pb2 import Message

_PRIORITIES = ("high", "normal", "low")
_WAIT = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """How a message goes, as the options say."""

    to: str
    topic: str
    id: str
    key: str
    delay: timedelta | None
    expires_in: timedelta | None
    priority: str
    reply_to: str


@click.command(
    epilog=examples(
        'weft send echo.Say \'{"text": "hello"}\' --wait 5s',
        "weft send support-escalation.OpenTicket --template > ticket.json",
        "weft send support-escalation.OpenTicket @ticket.json --key customer-7 --delay 10m",
        "weft send orders '{\"order\": 42}' --priority high --expires-in 1h",
        "weft send --topic orders.eu.created '{\"order\": 42}'",
    )
)
@click.argument(
    "target", metavar="[AGENT.METHOD|QUEUE]", default="", shell_complete=complete.skills
)
@click.argument("content", metavar="[JSON|@FILE|-]", default="")
@click.option("--to", default="", metavar="QUEUE", help="Queue of another name than the agent's.")
@click.option("--topic", default="", metavar="TOPIC", help="Publish to a topic instead.")
@click.option(
    "--id", "message_id", default="", metavar="ID", help="The same id again is the same message."
)
@click.option("--key", default="", metavar="KEY", help="Messages of one key are handled in order.")
@click.option("--delay", type=SPAN, metavar="SPAN", help="Not handled before, such as 10m.")
@click.option("--expires-in", type=SPAN, metavar="SPAN", help="Not handled after, such as 1h.")
@click.option("--priority", type=click.Choice(_PRIORITIES), default="normal", show_default=True)
@click.option("--reply-to", default="", metavar="QUEUE", help="Queue that gets the answer.")
@click.option(
    "--wait",
    type=SPAN,
    metavar="SPAN",
    help="Wait that long for the answer, and print it.",
)
@click.option("--template", is_flag=True, help="Print a request with every field and its type.")
@configured("broker", "registry")
@json_option
def send(
    *,
    settings: Settings,
    target: str,
    content: str,
    message_id: str,
    wait: timedelta | None,
    template: bool,
    as_json: bool,
    **way: Any,
) -> None:
    """Send a durable message: it is handled at least once, whoever dies meanwhile.

    To a skill of an agent the content is that method's request in JSON, as in `weft call`. To any other
    queue, or a topic, it is JSON that nobody checks. `@FILE` reads a file, `-` standard input.
    """
    from weft.cli import connect

    chosen = _Way(id=message_id or uuid.uuid4().hex, **way)
    if (chosen.topic or chosen.to) and not content and not _names_skill(target):
        target, content = "", target
    if not (target or chosen.topic or chosen.to):
        raise click.UsageError("Say who gets it: AGENT.METHOD, a queue, or --topic.")
    if chosen.topic and (chosen.to or wait is not None):
        raise click.UsageError(
            "A topic has no queue and no answer: --to and --wait are for one agent."
        )
    connect.run(_run(settings, target, content, chosen, wait, template=template, as_json=as_json))


def _read(given: str) -> str:
    try:
        if given == "-":
            return sys.stdin.read()
        return Path(given[1:]).read_text() if given.startswith("@") else given or "{}"
    except (OSError, UnicodeDecodeError) as failed:
        raise failures.WrongSetting(f"The message cannot be read: {failed}") from failed


async def _run(
    settings: Settings,
    target: str,
    content: str,
    way: _Way,
    wait: timedelta | None,
    *,
    template: bool,
    as_json: bool,
) -> None:
    from weft.cli import identities
    from weft.cli.payloads import Skills
    from weft.cli.template import render

    agent, skill = target, None
    if _names_skill(target):
        agent, _, method = target.partition(".")
        skill = await Skills(settings.registry).find(agent, method)
        if not template and not (way.to or way.topic):
            _check_delivery(agent, skill)
    if template:
        if skill is None:
            raise click.UsageError("--template needs AGENT.METHOD.")
        click.echo(render(skill.method.input_type))
        return
    message = _message(agent, skill, _read(content), way)
    if operator := identities.operator(settings):
        message.identity.CopyFrom(operator)
    async with brokers.connected(settings.broker) as broker:
        if wait is None:
            await _publish(broker, message, as_json=as_json)
        else:
            await _request(broker, message, skill, wait)


def _names_skill(target: str) -> bool:
    """Whether it is AGENT.METHOD and not a queue: those have no capital letters."""
    return "." in target and target != target.lower()


def _check_delivery(agent: str, skill: Skill) -> None:
    from weft.v1 import options_pb2

    if skill.options.delivery not in (options_pb2.DELIVERY_MESSAGE, options_pb2.DELIVERY_BOTH):
        raise failures.Failure(
            f"{skill.method.name} takes calls and no messages: `weft call {agent}.{skill.method.name}`."
        )


def _message(agent: str, skill: Skill | None, text: str, way: _Way) -> Message:
    from weft.cli import payloads
    from weft.rpc.call import new_traceparent
    from weft.v1 import message_pb2

    given = payloads.one_document(text, "message")
    message = message_pb2.Message(
        id=way.id,
        sender=brokers.sender(),
        recipient="" if way.topic else way.to or agent,
        topic=way.topic,
        key=way.key,
        priority=message_pb2.Priority.Value(f"PRIORITY_{way.priority.upper()}"),
        reply_to=way.reply_to,
        traceparent=new_traceparent(sampled=True),
    )
    if skill is None:
        message.content_type = payloads.JSON_TYPE
        message.payload = json.dumps(given, ensure_ascii=False).encode()
    else:
        message.method, message.payload = skill.path, payloads.request(skill, given)
    now = datetime.now(UTC)
    if way.delay is not None:
        message.not_before.FromDatetime(now + way.delay)
    if way.expires_in is not None:
        message.expire_time.FromDatetime(now + (way.delay or timedelta(0)) + way.expires_in)
    return message


async def _publish(broker: brokers.Broker, message: Message, *, as_json: bool) -> None:
    from weft.v1 import broker_pb2

    answer = await broker.call("Publish", broker_pb2.PublishRequest(message=message))
    where = message.recipient or message.topic
    if as_json:
        trace = message.traceparent.split("-")[1]
        output.print_json(
            {"id": answer.id, "duplicate": answer.duplicate, "to": where, "trace": trace}
        )
        return
    before = ", as it was before" if answer.duplicate else ""
    click.echo(f"{answer.id} is accepted by {where}{before}.")


async def _request(
    broker: brokers.Broker, message: Message, skill: Skill | None, wait: timedelta
) -> None:
    from weft import rpc
    from weft.cli import payloads
    from weft.v1 import broker_pb2

    answer = await broker.call(
        "Request", broker_pb2.RequestRequest(message=message), timeout=wait.total_seconds()
    )
    if answer.reply.WhichOneof("outcome") == "error":
        raise rpc.error_from_status(answer.reply.error)
    output.print_json(payloads.reply_document(answer.reply, skill))
