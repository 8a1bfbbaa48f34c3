"""`weft remote`: agents and servers elsewhere as agents of the mesh."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from weft.cli import failures, membership, output, part
from weft.cli.options import configured, examples, json_option

if TYPE_CHECKING:
    from weft.agents.remote import Keeper
    from weft.config import Remote, Settings

F = TypeVar("F", bound=Callable[..., Any])

# Libraries that write every URL, or what the remote said, to the log.
_TALKATIVE = ("httpx", "httpx2", "a2a", "mcp", "client")

_OPTIONS = (
    click.option(
        "--token-file", default="", metavar="FILE", help="File that holds the credential."
    ),
    click.option("--token-env", default="", metavar="VARIABLE", help="Variable that holds it."),
    click.option(
        "--header",
        default="Authorization",
        metavar="NAME",
        show_default=True,
        help='Header that carries it; Authorization has "Bearer" before it.',
    ),
    click.option(
        "--scope",
        "scopes",
        multiple=True,
        metavar="SCOPE",
        help="Scope that callers of the agent need; may be repeated.",
    ),
    click.option(
        "--timeout",
        type=float,
        default=60.0,
        metavar="SECONDS",
        show_default=True,
        help="How long a call may take whose caller names no deadline.",
    ),
    click.option(
        "--refresh",
        type=float,
        default=60.0,
        metavar="SECONDS",
        show_default=True,
        help="How often to look whether the remote offers something else.",
    ),
    click.option(
        "--host",
        "hosts",
        multiple=True,
        metavar="HOST[:PORT]",
        help="Other host that the remote may send requests to; may be repeated.",
    ),
    click.option("--ca-file", default="", metavar="FILE", help="Certificates to believe as well."),
    click.option(
        "--plaintext",
        is_flag=True,
        help="Take http for a host that is not this one: nothing is secret then.",
    ),
)


@click.group(
    invoke_without_command=True,
    epilog=examples(
        "weft remote",
        "weft remote mcp weather https://weather.example.com/mcp --token-file weather.token",
        "weft remote a2a translator https://agents.example.com/translator",
    ),
)
@configured("registry")
@json_option
@click.pass_context
def remote(ctx: click.Context, *, settings: Settings, as_json: bool) -> None:
    """Show MCP servers and A2A agents elsewhere as agents of the mesh.

    Without a command: those of the settings, which `weft up` runs.
    """
    if ctx.invoked_subcommand is not None:
        return
    remotes = settings.remotes.values()
    if as_json:
        output.print_json([dataclasses.asdict(each) for each in remotes])
        return
    output.print_table(
        ["AGENT", "PROTOCOL", "URL", "CREDENTIAL", "SCOPES"],
        [
            [
                each.name,
                each.protocol,
                each.url,
                each.token_file or each.token_env,
                " ".join(each.scopes),
            ]
            for each in remotes
        ],
        "The settings name no remote: [remotes.NAME] with mcp or a2a = its URL.",
    )


def _remote_command(command: F) -> F:
    """The arguments and options of a command that runs a remote."""
    command = part.supervisor_option(command)
    settings = configured(
        *("registry", "zone"),
        *membership.OPTIONS,
        listen="agents_listen",
        metrics="agents_metrics",
        log_format="log_format",
    )
    command = settings(command)
    for option in reversed(_OPTIONS):
        command = option(command)
    command = click.argument("url", metavar="URL")(command)
    return click.argument("name", metavar="NAME")(command)


@remote.command(
    epilog=examples(
        "weft remote mcp weather https://weather.example.com/mcp --token-file weather.token",
        'weft call weather.GetForecast \'{"city": "Oslo"}\'',
    )
)
@_remote_command
def mcp(*, settings: Settings, supervised: str | None, **given: Any) -> None:
    """Run the MCP server at URL (streamable HTTP) as the agent NAME: each tool is a skill."""
    _run(settings, supervised, protocol="mcp", **given)


@remote.command(
    epilog=examples(
        "weft remote a2a translator https://agents.example.com/translator --scope translator.use",
        'weft call translator.Translate \'{"text": "Good morning"}\'',
    )
)
@_remote_command
def a2a(*, settings: Settings, supervised: str | None, **given: Any) -> None:
    """Run the A2A agent whose card is at URL as the agent NAME: each of its skills is two, one that streams.

    URL is the card, or what is before /.well-known/agent-card.json.
    """
    _run(settings, supervised, protocol="a2a", **given)


def _run(settings: Settings, supervised: str | None, **given: Any) -> None:
    from weft.config import Remote

    with failures.settings_checked(given["name"]):
        described = Remote(**given)
    part.run(_serve(settings, supervised, described), supervised)


async def _serve(settings: Settings, supervised: str | None, described: Remote) -> None:
    from weft.agents import remote as remotes
    from weft.agents import serving

    async with (
        serving.member(settings) as mtls,
        serving.observed(settings, "agents", mtls) as watched,
    ):
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        # Before anything is announced, so that a setting that cannot be used is told of.
        await serving.host_of(settings, watched, mtls=mtls).stop()
        try:
            keeper = remotes.keeper_of(
                described, lambda: serving.host_of(settings, watched, mtls=mtls)
            )
        except (ImportError, OSError) as failed:
            raise failures.WrongSetting(f"{described.name}: {failed}") from failed
        metrics = "" if settings.agents_metrics.endswith(":0") else settings.agents_metrics
        await part.until_stopped(_keep(keeper, supervised, described, metrics))


async def _keep(
    keeper: Keeper[Any], supervised: str | None, described: Remote, metrics: str
) -> None:
    keeping = asyncio.create_task(keeper.run())
    registered = asyncio.create_task(keeper.registered.wait())
    try:
        if supervised is None:
            await asyncio.wait({keeping, registered}, return_when=asyncio.FIRST_COMPLETED)
        # `weft up` does not wait for what may be away for long.
        part.announce(
            supervised,
            address=keeper.address or described.url,
            agents=described.name,
            metrics=metrics,
        )
        await keeping
    finally:
        registered.cancel()
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
