"""`weft breakers`: the circuit breakers of a gateway, and those that an operator holds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from weft.cli import failures, output, rest
from weft.cli.options import configured, examples, json_option, key_option

if TYPE_CHECKING:
    from weft.config import Settings

_SECONDS = 10.0


@click.group(
    epilog=examples(
        "weft breakers list",
        "weft breakers hold support-research Search open",
        "weft breakers hold support-research Search auto",
    )
)
def breakers() -> None:
    """Show circuit breakers, and hold them open or closed.

    A gateway that asks for keys wants one with the scope gateway.admin.
    """


@breakers.command(name="list", epilog=examples("weft breakers list", "weft breakers list --json"))
@configured("gateway")
@key_option
@json_option
def list_breakers(*, settings: Settings, key: str | None, as_json: bool) -> None:
    """List the breakers of one gateway that have seen a call, or are held."""
    with _gateway(settings, key) as gateway:
        found = gateway.get("/breakers")["breakers"]
    if as_json:
        output.print_json(found)
        return
    output.print_table(
        ["AGENT", "METHOD", "STATE", "HELD", ">CALLS", ">FAILED", "LAST CHANGE"],
        [_row(one) for one in found],
        "No call has come yet.",
    )


@breakers.command(epilog=examples("weft breakers hold support-research Search open"))
@click.argument("agent")
@click.argument("method")
@click.argument("state", type=click.Choice(["open", "closed", "auto"]))
@configured("gateway")
@key_option
@json_option
def hold(
    *, settings: Settings, agent: str, method: str, state: str, key: str | None, as_json: bool
) -> None:
    """Hold a breaker open (calls are refused) or closed, or let go of it (auto).

    METHOD is the name of a method, or package.Service/Method. Every gateway follows within a second.
    """
    with _gateway(settings, key) as gateway:
        held = gateway.post("/breakers:hold", {"agent": agent, "method": method, "state": state})
    if as_json:
        output.print_json(held)
    elif state == "auto":
        click.echo(f"{held['method']} of {agent} is on its own again.")
    else:
        click.echo(f"{held['method']} of {agent} is held {state}.")


@contextlib.contextmanager
def _gateway(settings: Settings, key: str | None) -> Iterator[rest.Gateway]:
    try:
        yield rest.Gateway(url=settings.gateway, key=key or "", timeout=_SECONDS)
    except rest.GatewayUnreachable as closed:
        raise failures.Failure(
            f"The gateway at {settings.gateway} cannot be reached. Start everything with `weft up`, "
            "or name another gateway with --gateway or WEFT_GATEWAY."
        ) from closed


def _row(one: dict[str, Any]) -> list[Any]:
    held = "" if one["hold"] == "auto" else f"{one['hold']} by {one['heldBy']}"
    last = one["history"][-1] if one["history"] else None
    return [
        one["agent"],
        one["method"],
        output.state(one["state"]),
        held,
        str(one["calls"]),
        str(one["failures"]),
        "" if last is None else f"{last['to']} {last['at'][:19]}Z",
    ]
