"""The root command. Commands are imported when they are asked for, and import their parts when they run."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from weft.cli import failures

# Command -> what its line in the list of commands says. The module is weft.cli.commands.NAME, with "_" for "-".
_COMMANDS = {
    "up": "Run everything on this machine, supervised.",
    "demo": "Show a real question going through the mesh.",
    "ask": "Ask the support fleet a question.",
    "status": "Show which parts can be reached.",
    "health": "Ask one server how it is.",
    "doctor": "Find what is wrong with an installation.",
    "agents": "List agents, or serve some.",
    "traffic": "Say how calls find an instance: splits, zones, drills.",
    "remote": "Show servers and agents elsewhere as agents of the mesh.",
    "find": "Find agents by what they can do.",
    "resolve": "Show who would receive a call.",
    "xds-bootstrap": "Print what gRPC clients need to find agents.",
    "call": "Call a skill of an agent.",
    "send": "Send a durable message.",
    "queues": "Show queues, or change one.",
    "tail": "Follow the messages of a queue or topic.",
    "dead": "Look after messages that could not be handled.",
    "replay": "Show messages of the past, or send them again.",
    "trace": "Show recent traces, or the waterfall of one.",
    "run": "Run workflows of agents, and look after their runs.",
    "approvals": "Show what people have to decide, and decide it.",
    "knowledge": "Add documents, find what they say, delete them.",
    "tools": "Show what agents did by their tools.",
    "tickets": "List, claim and answer tickets.",
    "migrate": "Bring the database up to date.",
    "backup": "Back up a mesh that runs.",
    "restore": "Bring a backup back.",
    "keys": "Create, list and revoke API keys.",
    "certificates": "Issue certificates for mTLS on one machine.",
    "jobs": "Show jobs, and look after them.",
    "breakers": "Show circuit breakers, and hold them.",
    "bench": "Measure the mesh that runs.",
    "new": "Make an agent of your own.",
    "registry": "Run the registry alone.",
    "broker": "Run the broker alone.",
    "gateway": "Run the gateway alone.",
    "edge": "Put an Envoy before the mesh.",
    "alerts": "Tell alerts of Prometheus to Discord, Slack or a webhook.",
    "completion": "Print the completion script of a shell.",
}


class _Root(click.Group):
    """Knows its commands by name, so that listing them imports none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        found = getattr(importlib.import_module(f"weft.cli.commands.{name}"), name)
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in _COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"No such command {args[0]!r}.{failures.nearest(args[0], _COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 click's signature
    if not wanted or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"weft {version('weft')}")
    ctx.exit()


@click.group(
    cls=_Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def root() -> None:
    """Run AI agents the way you run services: typed, discovered, balanced.

    Start with `weft demo`, then `weft up`. Every setting is an environment variable WEFT_NAME, a line of
    weft.toml, or an option; `weft COMMAND --help` shows the options and an example.
    """


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command and ends the process: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    sys.exit(_run(args))


def _run(args: Sequence[str] | None) -> int:
    try:
        code = root.main(args, prog_name="weft", standalone_mode=False)
    except click.ClickException as failed:
        failed.show()
        return failed.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:
        # Whoever read our output has enough; Python must not complain at exit that it cannot flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as failed:
        known = failures.explain(failed)
        if known is None:
            raise
        known.show()
        return known.exit_code
    return code if isinstance(code, int) else 0
