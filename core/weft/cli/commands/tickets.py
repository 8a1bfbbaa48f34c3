"""`weft tickets`: the help desk's work, for the people who do it."""

from __future__ import annotations

import getpass
from collections.abc import Awaitable, Callable
from datetime import UTC
from typing import TYPE_CHECKING, TypeVar

import click

from weft.cli import complete, output
from weft.cli.options import configured, examples, json_option

if TYPE_CHECKING:
    from weft.config import Settings
    from weft.support.v1 import escalation_pb2
    from weft.support.v1.escalation_pb2_grpc import EscalationServiceAsyncStub

T = TypeVar("T")
_STATES = ("pending", "open", "claimed", "answered", "all")

_ticket_argument = click.argument("ticket_id", metavar="TICKET", shell_complete=complete.tickets)
_person_option = click.option(
    "--as", "person", metavar="NAME", help="Who you are; by default your login."
)


@click.group(
    invoke_without_command=True,
    epilog=examples(
        "weft tickets",
        "weft tickets claim T-1042",
        'weft tickets answer T-1042 "Your new card is on its way and arrives by Friday."',
    ),
)
@configured("registry")
@json_option
@click.pass_context
def tickets(ctx: click.Context, *, settings: Settings, as_json: bool) -> None:
    """List, claim and answer tickets; with no command, list what waits."""
    if ctx.invoked_subcommand is None:
        _list(settings, "pending", as_json=as_json)


@tickets.command(name="list", epilog=examples("weft tickets list --state answered"))
@click.option("--state", type=click.Choice(_STATES), default="pending", show_default=True)
@configured("registry")
@json_option
def list_tickets(*, settings: Settings, state: str, as_json: bool) -> None:
    """List tickets, the most pressing first."""
    _list(settings, state, as_json=as_json)


@tickets.command(epilog=examples("weft tickets show T-1042"))
@_ticket_argument
@configured("registry")
@json_option
def show(*, settings: Settings, ticket_id: str, as_json: bool) -> None:
    """Show one ticket."""
    from weft.support.v1 import escalation_pb2

    request = escalation_pb2.GetTicketRequest(ticket_id=ticket_id)

    async def ask(stub: EscalationServiceAsyncStub) -> escalation_pb2.Ticket:
        return (await stub.GetTicket(request)).ticket

    _show(_at_desk(settings, ask), as_json=as_json)


@tickets.command(epilog=examples("weft tickets claim T-1042 --as ada"))
@_ticket_argument
@_person_option
@configured("registry")
@json_option
def claim(*, settings: Settings, ticket_id: str, person: str | None, as_json: bool) -> None:
    """Claim a ticket, so that nobody else works on it."""
    from weft.support.v1 import escalation_pb2

    name = person or getpass.getuser()
    request = escalation_pb2.ClaimTicketRequest(ticket_id=ticket_id, assignee=name)

    async def ask(stub: EscalationServiceAsyncStub) -> escalation_pb2.Ticket:
        return (await stub.ClaimTicket(request)).ticket

    _show(_at_desk(settings, ask, name), as_json=as_json)


@tickets.command(
    epilog=examples('weft tickets answer T-1042 "Your new card is on its way." --as ada')
)
@_ticket_argument
@click.argument("text")
@_person_option
@configured("registry")
@json_option
def answer(
    *, settings: Settings, ticket_id: str, text: str, person: str | None, as_json: bool
) -> None:
    """Answer a ticket; the customer's conversation shows the answer."""
    from weft.support.v1 import escalation_pb2

    name = person or getpass.getuser()
    request = escalation_pb2.AnswerTicketRequest(ticket_id=ticket_id, assignee=name, answer=text)

    async def ask(stub: EscalationServiceAsyncStub) -> escalation_pb2.Ticket:
        return (await stub.AnswerTicket(request)).ticket

    _show(_at_desk(settings, ask, name), as_json=as_json)


def _at_desk(
    settings: Settings,
    ask: Callable[[EscalationServiceAsyncStub], Awaitable[T]],
    person: str = "",
) -> T:
    from weft.cli import connect, desk, identities

    identity = identities.person(settings, person) if person else None

    async def work() -> T:
        async with connect.registry(settings.registry) as registry:
            await registry.agent(desk.AGENT)
        async with desk.escalation(settings.registry, identity) as stub:
            return await ask(stub)

    return connect.run(work())


def _list(settings: Settings, state: str, *, as_json: bool) -> None:
    from weft.cli import desk
    from weft.support.v1 import escalation_pb2

    async def ask(stub: EscalationServiceAsyncStub) -> list[escalation_pb2.Ticket]:
        if state == "pending":
            return await desk.pending(stub)
        name = "UNSPECIFIED" if state == "all" else state.upper()
        return await desk.listed(stub, escalation_pb2.TicketState.Value(f"TICKET_STATE_{name}"))

    found = _at_desk(settings, ask)
    if as_json:
        output.print_json([output.as_json(ticket) for ticket in found])
        return
    output.print_table(
        ["TICKET", "PRIORITY", "STATE", "DUE", "ASSIGNEE", "QUESTION"],
        [
            [
                ticket.ticket_id,
                _priority(ticket),
                output.state(_state(ticket)),
                _due(ticket),
                ticket.assignee,
                _first_line(ticket.question),
            ]
            for ticket in found
        ],
        "No ticket waits." if state == "pending" else "There is no such ticket.",
    )


def _show(ticket: escalation_pb2.Ticket, *, as_json: bool) -> None:
    if as_json:
        output.print_json(output.as_json(ticket))
        return
    facts = {
        "ticket": ticket.ticket_id,
        "state": _state(ticket).lower(),
        "priority": _priority(ticket).lower(),
        "opened": output.moment(ticket.create_time.ToDatetime(tzinfo=UTC)),
        "due": _due(ticket),
        "assignee": ticket.assignee,
        "conversation": ticket.conversation_id,
        "question": ticket.question,
        "reason": ticket.reason,
        "answer": ticket.answer,
    }
    out = output.console()
    for name, value in facts.items():
        if value:
            out.print(f"{name:<13}{value}")


def _state(ticket: escalation_pb2.Ticket) -> str:
    from weft.support.v1 import escalation_pb2

    return escalation_pb2.TicketState.Name(ticket.state).removeprefix("TICKET_STATE_")


def _priority(ticket: escalation_pb2.Ticket) -> str:
    from weft.support.v1 import support_pb2

    return support_pb2.Urgency.Name(ticket.priority).removeprefix("URGENCY_")


def _due(ticket: escalation_pb2.Ticket) -> str:
    if _state(ticket) == "ANSWERED":
        return ""
    return output.until(ticket.due_time.ToDatetime(tzinfo=UTC))


def _first_line(text: str, most: int = 80) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= most else f"{flat[: most - 1]}…"
