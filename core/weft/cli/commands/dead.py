"""`weft dead`: messages that could not be handled: look, repair, requeue, give up."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from weft.cli import brokers, failures, output
from weft.cli.brokers import complete_queue
from weft.cli.options import configured, examples, json_option
from weft.cli.spans import MOMENT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from weft.cli.brokers import Broker
    from weft.config import Settings
    from weft.v1 import broker_pb2 as pb

_PAGE = 1_000
_KEPT = ("id", "sender", "recipient", "topic", "key")  # what an edit leaves as it was

_queue_argument = click.argument("queue", metavar="QUEUE", shell_complete=complete_queue)
_id_argument = click.argument("dead_letter_id", metavar="ID")


def _filter_options(command: Any) -> Any:
    """Options that choose dead letters by what they have in common."""
    for option in reversed(
        (
            click.option("--reason", default="", metavar="WORD", help="Such as MAX_ATTEMPTS."),
            click.option("--sender", default="", metavar="NAME", help="Who sent them."),
            click.option("--key", default="", metavar="KEY", help="Their ordering key."),
            click.option("--method", default="", metavar="PATH", help="Such as /a.B/C."),
            click.option(
                "--from", "from_time", type=MOMENT, metavar="WHEN", help="Dead since: 2h, a date."
            ),
            click.option("--to", "to_time", type=MOMENT, metavar="WHEN", help="Dead before."),
        )
    ):
        command = option(command)
    return command


@click.group(
    epilog=examples(
        "weft dead list",
        "weft dead show orders 1792-0",
        "weft dead edit orders 1792-0",
        "weft dead requeue orders 1792-0",
        "weft dead requeue orders --reason MAX_ATTEMPTS --from 2h",
    )
)
def dead() -> None:
    """Look after messages that could not be handled."""


@dead.command(
    name="list", epilog=examples("weft dead list", "weft dead list orders --reason EXPIRED --json")
)
@click.argument("queue", metavar="[QUEUE]", default="", shell_complete=complete_queue)
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@_filter_options
@configured("broker", "registry")
@json_option
def list_dead(*, settings: Settings, queue: str, limit: int, as_json: bool, **wanted: Any) -> None:
    """List dead letters of a queue, or of all, oldest first."""
    shown = _at_broker(
        settings, lambda broker: _listed(broker, settings, queue, _filter(wanted), limit)
    )
    if as_json:
        output.print_json(shown)
        return
    from weft.cli import payloads

    output.print_table(
        [
            "QUEUE",
            "ID",
            "REASON",
            ">ATTEMPTS",
            "DEAD SINCE",
            "SENDER",
            "METHOD",
            "ERROR",
            "PAYLOAD",
        ],
        [
            [
                letter["queue"],
                letter["deadLetterId"],
                letter.get("reason", ""),
                str(letter.get("attempts", 0)),
                _since(letter["deadTime"]),
                letter["message"].get("sender", ""),
                letter["message"].get("method", "").rpartition("/")[2],
                _short(letter.get("error", "")),
                payloads.summary(letter["message"], most=60),
            ]
            for letter in shown
        ],
        "No message is dead.",
    )


@dead.command(epilog=examples("weft dead show orders 1792-0"))
@_queue_argument
@_id_argument
@configured("broker", "registry")
def show(*, settings: Settings, queue: str, dead_letter_id: str) -> None:
    """Show a dead letter in JSON, its payload typed by its method."""

    async def ask(broker: Broker) -> dict[str, Any]:
        return await _document(await _letter(broker, queue, dead_letter_id), settings)

    output.print_json(_at_broker(settings, ask))


@dead.command(
    epilog=examples(
        "weft dead edit orders 1792-0",
        "weft dead edit orders 1792-0 --requeue",
        "weft dead edit orders 1792-0 --with @message.json",
    )
)
@_queue_argument
@_id_argument
@click.option("--with", "given", metavar="JSON|@FILE", help="The message as it shall be.")
@click.option("--requeue", is_flag=True, help="Put it back into its queue as well.")
@configured("broker", "registry")
@json_option
def edit(
    *,
    settings: Settings,
    queue: str,
    dead_letter_id: str,
    given: str | None,
    requeue: bool,
    as_json: bool,
) -> None:
    """Change the message of a dead letter, in your editor ($VISUAL or $EDITOR).

    It gets a new id. Id, sender, recipient, topic and key of the message stay as they were.
    """
    letter = _at_broker(
        settings, lambda broker: _edited(broker, settings, queue, dead_letter_id, given)
    )
    if requeue:
        _settled(settings, "RequeueDeadLetters", queue, (letter["deadLetterId"],), {})
    if as_json:
        output.print_json(letter)
    elif requeue:
        click.echo(f"It is changed, and back in {queue}.")
    else:
        new = letter["deadLetterId"]
        click.echo(f"It is changed, and is {new} now. `weft dead requeue {queue} {new}` sends it.")


@dead.command(
    epilog=examples(
        "weft dead requeue orders 1792-0 1793-0",
        "weft dead requeue orders --reason MAX_ATTEMPTS --from 2h",
        "weft dead requeue orders --all",
    )
)
@_queue_argument
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All dead letters of the queue.")
@_filter_options
@configured("broker")
def requeue(
    *, settings: Settings, queue: str, ids: tuple[str, ...], everything: bool, **wanted: Any
) -> None:
    """Put dead letters back into their queue, as first attempts."""
    _check_selection(ids, wanted, everything=everything)
    count = _settled(settings, "RequeueDeadLetters", queue, ids, wanted).requeued
    click.echo(f"{count} messages are back in {queue}.")


@dead.command(
    epilog=examples(
        "weft dead discard orders 1792-0", "weft dead discard orders --reason EXPIRED --yes"
    )
)
@_queue_argument
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All dead letters of the queue.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_filter_options
@configured("broker")
def discard(
    *,
    settings: Settings,
    queue: str,
    ids: tuple[str, ...],
    everything: bool,
    yes: bool,
    **wanted: Any,
) -> None:
    """Give dead letters up."""
    _check_selection(ids, wanted, everything=everything)
    if not yes and not ids:
        click.confirm(f"Give up all dead letters of {queue} that match?", abort=True, err=True)
    count = _settled(settings, "DiscardDeadLetters", queue, ids, wanted).discarded
    click.echo(f"{count} messages of {queue} are given up.")


def _check_selection(ids: tuple[str, ...], wanted: dict[str, Any], *, everything: bool) -> None:
    if sum((bool(ids), any(wanted.values()), everything)) != 1:
        raise click.UsageError(
            "Name dead letters by ID, by a condition such as --reason, or --all."
        )


def _filter(wanted: dict[str, Any]) -> pb.DeadLetterFilter:
    from weft.v1 import broker_pb2

    found = broker_pb2.DeadLetterFilter()
    for name, value in wanted.items():
        if isinstance(value, datetime):
            getattr(found, name).FromDatetime(value)
        elif value:
            setattr(found, name, value)
    return found


def _at_broker(settings: Settings, ask: Callable[[Broker], Awaitable[Any]]) -> Any:
    from weft.cli import connect

    async def work() -> Any:
        async with brokers.connected(settings.broker) as broker:
            return await ask(broker)

    return connect.run(work())


async def _listed(
    broker: Broker, settings: Settings, queue: str, wanted: pb.DeadLetterFilter, limit: int
) -> list[dict[str, Any]]:
    from weft.cli.payloads import Skills, document
    from weft.v1 import broker_pb2

    if queue:
        names = [(await broker.queue(queue)).queue]
    else:
        every = [*await broker.queues(), *await broker.queues("_topics.*")]
        names = [one.queue for one in every if one.dead]
    skills = Skills(settings.registry)
    shown: list[dict[str, Any]] = []
    for name in names:
        request = broker_pb2.ListDeadLettersRequest(queue=name, filter=wanted)
        while len(shown) < limit:
            request.page_size = min(_PAGE, limit - len(shown))
            page = await broker.call("ListDeadLetters", request)
            for letter in page.dead_letters:
                found = output.as_json(letter)
                found["message"] = await document(letter.message, skills)
                shown.append(found)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
    return shown


async def _letter(broker: Broker, queue: str, dead_letter_id: str) -> pb.DeadLetter:
    from weft.v1 import broker_pb2

    await broker.queue(queue)  # says what is similar
    request = broker_pb2.GetDeadLetterRequest(queue=queue, dead_letter_id=dead_letter_id)
    letter: pb.DeadLetter = (await broker.call("GetDeadLetter", request)).dead_letter
    return letter


async def _document(letter: pb.DeadLetter, settings: Settings) -> dict[str, Any]:
    from weft.cli.payloads import Skills, document

    found = output.as_json(letter)
    found["message"] = await document(letter.message, Skills(settings.registry))
    return found


async def _edited(
    broker: Broker, settings: Settings, queue: str, dead_letter_id: str, given: str | None
) -> dict[str, Any]:
    from weft.cli import payloads
    from weft.v1 import broker_pb2

    letter = await _letter(broker, queue, dead_letter_id)
    skills = payloads.Skills(settings.registry)
    before = await payloads.document(letter.message, skills)
    text = _in_editor(letter, before) if given is None else _read(given)
    message = await payloads.edited(letter.message, text, skills)
    for name in _KEPT:
        setattr(message, name, getattr(letter.message, name))
    if message == letter.message:
        raise failures.Failure("Nothing was changed.")
    request = broker_pb2.EditDeadLetterRequest(
        queue=queue, dead_letter_id=dead_letter_id, message=message
    )
    changed = (await broker.call("EditDeadLetter", request)).dead_letter
    found = output.as_json(changed)
    found["message"] = await payloads.document(changed.message, skills)
    return found


def _in_editor(letter: pb.DeadLetter, before: dict[str, Any]) -> str:
    why = [f"// {letter.reason} after {letter.attempts} attempts"]
    why += [f"// {line}" for line in letter.error.splitlines()]
    note = f"// {', '.join(_KEPT)} stay as they are. Leave without saving to change nothing."
    text = "\n".join([*why, note, json.dumps(before, indent=2, ensure_ascii=False), ""])
    changed = click.edit(text, extension=".json")
    if changed is None:
        raise failures.Failure("Nothing was changed.")
    return changed


def _read(given: str) -> str:
    try:
        return Path(given[1:]).read_text() if given.startswith("@") else given
    except (OSError, UnicodeDecodeError) as failed:
        raise failures.WrongSetting(f"The message cannot be read: {failed}") from failed


def _settled(
    settings: Settings, method: str, queue: str, ids: tuple[str, ...], wanted: dict[str, Any]
) -> Any:
    from weft.v1 import broker_pb2

    selection = broker_pb2.DeadLetterSelection(dead_letter_ids=ids)
    if not ids:
        selection.filter.CopyFrom(_filter(wanted))

    async def ask(broker: Broker) -> Any:
        await broker.queue(queue)  # says what is similar
        request = getattr(broker_pb2, f"{method}Request")(queue=queue, selection=selection)
        return await broker.call(method, request)

    return _at_broker(settings, ask)


def _since(iso: str) -> str:
    return output.age(datetime.now(UTC) - datetime.fromisoformat(iso))


def _short(text: str, most: int = 60) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= most else f"{flat[: most - 1]}…"
