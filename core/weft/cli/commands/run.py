"""`weft run`: workflows of agents, checked, stored and begun; `runs` and `debate` have its other commands."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

import click

from weft.cli import complete, failures, graphs, output
from weft.cli.commands import debate, runs
from weft.cli.options import budget_options, configured, detach_option, examples, json_option

if TYPE_CHECKING:
    from weft.config import Settings

_input_option = click.option(
    "--input", "given", default="{}", metavar="JSON|@FILE", help="What the run begins with."
)
_id_option = click.option(
    "--id", "run_id", default="", help="Id of the run; by default one is made."
)


class _Runs(click.Group):
    """`weft run graph.yaml` is `weft run graph graph.yaml`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        first = args[0]
        if first not in self.commands and not ctx.resilient_parsing:
            if graphs.is_file(first):
                args = ["graph", *args]
            elif not first.startswith("-"):
                hint = failures.nearest(first, self.commands)
                ctx.fail(
                    f"{first!r} is neither a file nor a command.{hint} "
                    "To run a workflow that was submitted: weft run start NAME."
                )
        return super().resolve_command(ctx, args)


@click.group(
    name="run",
    cls=_Runs,
    subcommand_metavar="GRAPH.yaml | COMMAND [ARGS]...",
    epilog=examples(
        'weft run graph.yaml --input \'{"text": "Where is my card?"}\'',
        "weft run check graph.yaml && weft run submit graph.yaml",
        "weft run start answer --input @request.json --detach",
        "weft run start answer --input @request.json --budget-usd 0.50",
        'weft run debate "Is 91 prime?"',
        "weft run watch RUN",
        "weft run draw graph.yaml --output graph.svg",
    ),
)
def run() -> None:
    """Run workflows of agents, and look after their runs.

    With a file: run the workflow in it, show its steps as they go, and print its result. docs/workflows.md
    says how workflows are written and what is promised of their runs.

    Exit status: 0 the run succeeded, 1 it failed or was cancelled, 2 wrong usage. Ctrl-C ends the command,
    never the run.
    """


@run.command(
    hidden=True,
    epilog=examples('weft run graph.yaml --input \'{"text": "Where is my card?"}\''),
)
@click.argument("file", metavar="GRAPH.yaml")
@_input_option
@_id_option
@budget_options
@detach_option
@configured("registry")
@json_option
def graph(
    *,
    settings: Settings,
    file: str,
    given: str,
    run_id: str,
    detach: bool,
    as_json: bool,
    **budget: Any,
) -> int:
    """Run the workflow in a file (`-`: standard input) and follow it to its end."""
    from weft.cli import running
    from weft.v1 import orchestrator_pb2

    found = graphs.read(file)
    request = orchestrator_pb2.StartRunRequest(spec=found.spec, id=run_id)
    request.input.CopyFrom(running.message(given))
    running.limit(request, **budget)
    told = running.Faults(file, found)
    return running.begun(settings, request, detach=detach, as_json=as_json, faults=told)


@run.command(epilog=examples('weft run start answer --input \'{"text": "Where is my card?"}\''))
@click.argument("name", metavar="NAME[@VERSION]", shell_complete=complete.workflows)
@_input_option
@_id_option
@budget_options
@detach_option
@configured("registry")
@json_option
def start(
    *,
    settings: Settings,
    name: str,
    given: str,
    run_id: str,
    detach: bool,
    as_json: bool,
    **budget: Any,
) -> int:
    """Run a workflow that was submitted."""
    from weft.cli import running
    from weft.v1 import orchestrator_pb2

    request = orchestrator_pb2.StartRunRequest(workflow=name, id=run_id)
    request.input.CopyFrom(running.message(given))
    running.limit(request, **budget)
    return running.begun(settings, request, detach=detach, as_json=as_json)


@run.command(epilog=examples("weft run check graph.yaml", "weft run check graph.yaml --json"))
@click.argument("file", metavar="GRAPH.yaml")
@configured("registry")
@json_option
def check(*, settings: Settings, file: str, as_json: bool) -> int:
    """Say all that is wrong with a workflow, with lines and columns; nothing is stored or run."""
    from weft.cli import running

    try:
        found = graphs.read(file)
    except graphs.Unreadable as failed:
        if not as_json:
            raise
        output.print_json({"faults": failed.faults, "outputType": ""})
        return 1
    faults, kind = running.check(settings, found)
    if as_json:
        output.print_json({"faults": faults, "outputType": kind})
    elif faults:
        click.echo("\n".join(graphs.lines(file, faults)))
    else:
        click.echo(f"{file} is right; it gives {kind or 'what its last step gives'}.")
    return 1 if faults else 0


@run.command(epilog=examples("weft run submit graph.yaml"))
@click.argument("file", metavar="GRAPH.yaml")
@configured("registry")
@json_option
def submit(*, settings: Settings, file: str, as_json: bool) -> None:
    """Store a workflow as the next version of its name; `weft run start NAME` runs it."""
    from weft.cli import running

    found = graphs.read(file)
    stored = running.submit(settings, found, running.Faults(file, found))
    if as_json:
        output.print_json(output.as_json(stored))
    else:
        click.echo(f"{stored.name}, version {stored.version}; run it: weft run start {stored.name}")


@run.command(epilog=examples("weft run workflows", "weft run workflows answer > graph.yaml"))
@click.argument("name", required=False, metavar="[NAME]", shell_complete=complete.workflows)
@configured("registry")
@json_option
def workflows(*, settings: Settings, name: str | None, as_json: bool) -> None:
    """List the workflows that were submitted, or print one as YAML."""
    from weft.cli import running

    if name:
        stored = running.workflow(settings, name)
        if as_json:
            output.print_json(output.as_json(stored))
            return
        from weft.agents.orchestrator.forms import to_yaml

        graphs.write(to_yaml(stored.spec), "-")
        return
    found = running.workflows(settings)
    if as_json:
        output.print_json([output.as_json(each) for each in found])
        return
    output.print_table(
        ["WORKFLOW", ">VERSION", "GIVES", "SUBMITTED", "BY"],
        [
            [
                each.name,
                str(each.version),
                each.output_type,
                output.moment(each.create_time.ToDatetime(tzinfo=UTC)),
                each.subject,
            ]
            for each in found
        ],
        "No workflow was submitted. Submit one: weft run submit graph.yaml",
    )


run.add_command(debate.debate)
for each in runs.COMMANDS:
    run.add_command(each)
