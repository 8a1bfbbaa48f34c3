"""`weft run list` and its like: the runs of workflows."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

import click

from weft.cli import complete, graphs, output
from weft.cli.options import budget_options, configured, detach_option, examples, json_option

if TYPE_CHECKING:
    from weft.cli.orchestration import Orchestrator
    from weft.config import Settings
    from weft.v1 import orchestrator_pb2 as pb

_STATES = ("queued", "running", "waiting", "succeeded", "failed", "cancelled")

_run_argument = click.argument("run_id", metavar="RUN", shell_complete=complete.runs)


@click.command(
    name="list", epilog=examples("weft run list", "weft run list --state waiting --json")
)
@click.option("--state", type=click.Choice(_STATES), help="Runs in this state only.")
@click.option(
    "--workflow",
    default="",
    metavar="NAME",
    shell_complete=complete.workflows,
    help="Runs of this one only.",
)
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, help="Most to list."
)
@configured("registry")
@json_option
def list_runs(
    *, settings: Settings, state: str | None, workflow: str, limit: int, as_json: bool
) -> None:
    """List runs, the newest first."""
    from weft.cli import running, steps
    from weft.v1 import orchestrator_pb2

    request = orchestrator_pb2.ListRunsRequest(workflow=workflow)
    if state:
        request.state = orchestrator_pb2.RunState.Value(f"RUN_STATE_{state.upper()}")

    async def ask(orchestrator: Orchestrator) -> list[pb.Run]:
        return await orchestrator.runs(request, limit)

    found = running.ask(settings, ask)
    if as_json:
        output.print_json([output.as_json(each) for each in found])
        return
    output.print_table(
        ["RUN", "WORKFLOW", "STATE", "BEGUN", ">TOOK", "BY"],
        [
            [
                each.id,
                f"{each.workflow}@{each.version}" if each.version else each.workflow,
                output.state(steps.state(each)),
                output.moment(each.create_time.ToDatetime(tzinfo=UTC)),
                steps.span(each),
                each.subject,
            ]
            for each in found
        ],
        "There is no such run. Begin one: weft run graph.yaml --input '{...}'",
    )


@click.command(epilog=examples("weft run get RUN", "weft run get RUN --outputs --json"))
@_run_argument
@click.option("--outputs", is_flag=True, help="With what each step gave.")
@configured("registry")
@json_option
def get(*, settings: Settings, run_id: str, outputs: bool, as_json: bool) -> None:
    """Show a run: its steps, and what came of it."""
    from weft.cli import running

    running.show(settings, run_id, outputs=outputs, as_json=as_json)


@click.command(epilog=examples("weft run watch RUN", "weft run watch RUN --json"))
@_run_argument
@configured("registry")
@json_option
def watch(*, settings: Settings, run_id: str, as_json: bool) -> int:
    """Follow a run from its beginning to its end; with --json, each event is a line."""
    from weft.cli import running

    return running.followed(settings, run_id, as_json=as_json)


@click.command(epilog=examples("weft run cancel RUN"))
@_run_argument
@configured("registry")
@json_option
def cancel(*, settings: Settings, run_id: str, as_json: bool) -> None:
    """Cancel a run: calls under way are dropped, steps with a compensation undone."""
    from weft.cli import running, steps
    from weft.v1 import orchestrator_pb2

    async def ask(orchestrator: Orchestrator) -> pb.Run:
        request = orchestrator_pb2.CancelRunRequest(id=run_id)
        return (await orchestrator.stub.CancelRun(request)).run

    found = running.ask(settings, ask)
    if as_json:
        output.print_json(output.as_json(found))
        return
    going = "" if steps.ended(found) else "; it is being cancelled"
    click.echo(f"run {found.id} {steps.state(found).lower()}{going}")


@click.command(epilog=examples("weft run retry RUN", "weft run retry RUN --from solution@1"))
@_run_argument
@click.option(
    "--from", "step", default="", metavar="STEP", help="Step to begin with, such as solution@1."
)
@click.option("--id", "new_id", default="", help="Id of the new run; by default one is made.")
@budget_options
@detach_option
@configured("registry")
@json_option
def retry(
    *,
    settings: Settings,
    run_id: str,
    step: str,
    new_id: str,
    detach: bool,
    as_json: bool,
    **budget: Any,
) -> int:
    """Begin a run that goes on from a step of an ended one; by default from those that failed.

    It may spend as much on models as that one, where no budget is given.
    """
    from weft.cli import running
    from weft.v1 import orchestrator_pb2

    request = orchestrator_pb2.RetryRunRequest(id=run_id, step=step, new_id=new_id)
    running.limit(request, **budget)
    return running.begun(settings, request, detach=detach, as_json=as_json)


@click.command(epilog=examples('weft run signal RUN order \'{"id": "42"}\' --once 42'))
@_run_argument
@click.argument("name")
@click.argument("given", metavar="[JSON|@FILE|-]", default="{}")
@click.option("--once", default="", metavar="KEY", help="The same key again is the same message.")
@configured("registry")
def signal(*, settings: Settings, run_id: str, name: str, given: str, once: str) -> None:
    """Give a run a message that one of its steps waits for."""
    from weft.cli import running
    from weft.v1 import orchestrator_pb2

    request = orchestrator_pb2.SignalRunRequest(id=run_id, name=name, key=once)
    request.message.CopyFrom(running.message(given))

    async def ask(orchestrator: Orchestrator) -> Any:
        return await orchestrator.stub.SignalRun(request)

    running.ask(settings, ask)
    click.echo(f"run {run_id} has {name}")


@click.command(
    epilog=examples(
        "weft run draw graph.yaml --output graph.svg",
        "weft run draw RUN --output run.svg",
        "weft run draw answer --format mermaid",
    )
)
@click.argument("subject", metavar="GRAPH.yaml|WORKFLOW|RUN", shell_complete=complete.workflows)
@click.option(
    "--format", "form", type=click.Choice(("svg", "mermaid")), default="svg", show_default=True
)
@click.option(
    "--output", "-o", "target", default="-", metavar="FILE", help="By default standard output."
)
@configured("registry")
def draw(*, settings: Settings, subject: str, form: str, target: str) -> None:
    """Draw a workflow, or a run with its states and times.

    A file is drawn here, with no mesh; names and ids are asked of the orchestrator, runs first.
    """
    from weft.cli import running

    drawn = running.drawn(settings, subject, form)
    graphs.write(drawn, target)


COMMANDS = (list_runs, get, watch, cancel, retry, signal, draw)
