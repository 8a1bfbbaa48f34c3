"""What `weft run` does with an orchestrator."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import grpc

from weft import rpc
from weft.cli import connect, failures, graphs, orchestration, output, steps
from weft.cli.following import Following, show_end
from weft.v1 import orchestrator_pb2 as pb

if TYPE_CHECKING:
    from weft.agents.orchestrator.forms import ReadSpec
    from weft.cli.orchestration import Orchestrator
    from weft.config import Settings
    from weft.v1.workflow_pb2 import TypedMessage

T = TypeVar("T")
_PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=False)
class Faults:
    """Where a workflow was read, to tell its faults with their lines."""

    name: str
    found: ReadSpec

    async def raised(self, orchestrator: Orchestrator, failed: grpc.aio.AioRpcError) -> None:
        """Raises what is wrong with the workflow, where that is why a call failed.

        Raises:
            Failure: its faults.
        """
        if rpc.error_from_call(failed).reason != "WORKFLOW_INVALID":
            return
        request = pb.CheckWorkflowRequest(spec=self.found.spec)
        checked = await orchestrator.stub.CheckWorkflow(request)
        told = graphs.lines(self.name, graphs.located(checked.faults, self.found))
        if told:
            raise failures.Failure(
                "The workflow cannot be run:\n" + "\n".join(f"  {line}" for line in told)
            ) from failed


def ask(
    settings: Settings, question: Callable[[Orchestrator], Awaitable[T]], person: str = ""
) -> T:
    """What an orchestrator answers."""

    async def work() -> T:
        async with orchestration.connected(settings, person) as orchestrator:
            return await question(orchestrator)

    return connect.run(work())


def message(given: str) -> TypedMessage:
    """A message from JSON, `@FILE` or `-`.

    Raises:
        WrongSetting: it is none.
    """
    try:
        text = given
        if given == "-":
            text = sys.stdin.read()
        elif given.startswith("@"):
            text = Path(given[1:]).read_text()
    except (OSError, UnicodeDecodeError) as failed:
        raise failures.WrongSetting(f"The message cannot be read: {failed}") from failed
    found: TypedMessage = orchestration.typed(text)
    return found


def limit(
    request: pb.StartRunRequest | pb.RetryRunRequest,
    *,
    budget_tokens: int | None,
    budget_usd: float | None,
) -> None:
    """Says what a run may spend, where anything is said."""
    if budget_tokens is not None:
        request.budget.tokens = budget_tokens
    if budget_usd is not None:
        request.budget.usd = budget_usd


def begun(
    settings: Settings,
    request: pb.StartRunRequest | pb.RetryRunRequest,
    *,
    detach: bool,
    as_json: bool,
    faults: Faults | None = None,
) -> int:
    """Begins a run and follows it, if not `detach`; the exit status."""

    async def begin(orchestrator: Orchestrator) -> pb.Run:
        try:
            if isinstance(request, pb.RetryRunRequest):
                return (await orchestrator.stub.RetryRun(request)).run
            metadata = connect.traced_metadata()
            return (await orchestrator.stub.StartRun(request, metadata=metadata)).run
        except grpc.aio.AioRpcError as failed:
            if faults is not None:
                await faults.raised(orchestrator, failed)
            raise

    run = ask(settings, begin)
    if detach:
        if as_json:
            output.print_json(output.as_json(run))
        else:
            click.echo(run.id)
        return 0
    return followed(settings, run.id, as_json=as_json)


def followed(settings: Settings, run_id: str, *, as_json: bool) -> int:
    """Follows a run to its end; the exit status."""

    async def follow(orchestrator: Orchestrator) -> pb.Run:
        await orchestrator.stub.GetRun(pb.GetRunRequest(id=run_id))  # or there is none
        with Following(run_id, as_json=as_json) as following:
            async for event in orchestrator.watch(run_id):
                following.seen(event)
        return (await orchestrator.stub.GetRun(pb.GetRunRequest(id=run_id))).run

    try:
        run = ask(settings, follow)
    except KeyboardInterrupt:
        click.echo(f"The run goes on: weft run watch {run_id}", err=True)
        raise
    if not as_json:
        show_end(run)
    return 0 if run.state == pb.RUN_STATE_SUCCEEDED else 1


def check(settings: Settings, found: ReadSpec) -> tuple[Sequence[Mapping[str, Any]], str]:
    """What is wrong with a workflow, and the type of its result."""

    async def work(orchestrator: Orchestrator) -> pb.CheckWorkflowResponse:
        return await orchestrator.stub.CheckWorkflow(pb.CheckWorkflowRequest(spec=found.spec))

    checked = ask(settings, work)
    return graphs.located(checked.faults, found), checked.output_type


def submit(settings: Settings, found: ReadSpec, faults: Faults) -> pb.Workflow:
    """Stores a workflow.

    Raises:
        Failure: it has faults.
    """

    async def work(orchestrator: Orchestrator) -> pb.Workflow:
        try:
            request = pb.SubmitWorkflowRequest(spec=found.spec)
            return (await orchestrator.stub.SubmitWorkflow(request)).workflow
        except grpc.aio.AioRpcError as failed:
            await faults.raised(orchestrator, failed)
            raise

    return ask(settings, work)


def workflow(settings: Settings, name: str) -> pb.Workflow:
    """A workflow that was submitted: NAME or NAME@VERSION.

    Raises:
        UsageError: it is neither.
    """
    plain, at, version = name.partition("@")
    if at and not version.isdecimal():
        raise click.UsageError(f"{name!r} is not NAME or NAME@VERSION.")

    async def work(orchestrator: Orchestrator) -> pb.Workflow:
        request = pb.GetWorkflowRequest(name=plain, version=int(version or 0))
        return (await orchestrator.stub.GetWorkflow(request)).workflow

    return ask(settings, work)


def workflows(settings: Settings) -> list[pb.Workflow]:
    """All workflows that were submitted."""

    async def work(orchestrator: Orchestrator) -> list[pb.Workflow]:
        found: list[pb.Workflow] = []
        request = pb.ListWorkflowsRequest(page_size=_PAGE)
        while True:
            page = await orchestrator.stub.ListWorkflows(request)
            found += page.workflows
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found

    return ask(settings, work)


def show(settings: Settings, run_id: str, *, outputs: bool, as_json: bool) -> None:
    """Prints a run."""

    async def work(orchestrator: Orchestrator) -> pb.Run:
        request = pb.GetRunRequest(id=run_id, outputs=outputs or not as_json)
        return (await orchestrator.stub.GetRun(request)).run

    run = ask(settings, work)
    if as_json:
        output.print_json(output.as_json(run))
        return
    out = output.console()
    version = f"@{run.version}" if run.version else ""
    facts = {
        "run": run.id,
        "workflow": f"{run.workflow}{version}",
        "state": steps.state(run).lower() + (", being cancelled" if run.cancelling else ""),
        "by": run.subject,
        "parent": run.parent,
        "goes on": run.retry_of,
        "took": steps.span(run),
        "trace": run.trace_id,
        "spent": steps.spent(run),
        "failure": steps.failure(run.failure) if run.HasField("failure") else "",
    }
    for name, value in facts.items():
        if value:
            out.print(f"{name:<10}{value}")
    for part in run.spending.parts:
        out.print(f"{'':<10}{steps.part(part)}")
    out.print()
    for step in sorted(run.steps, key=_place(run)):
        out.print(steps.line(step), no_wrap=out.is_terminal, overflow="ellipsis")
        if outputs and step.HasField("output"):
            output.print_json(steps.value(step.output))
    if run.HasField("output"):
        out.print()
        output.print_json(steps.value(run.output))


def _place(run: pb.Run) -> Callable[[pb.Step], tuple[int, int]]:
    """Steps as they began, the parts of each behind it."""
    at = {step.key: number for number, step in enumerate(run.steps)}
    return lambda step: (at.get(step.key.partition("/")[0], len(at)), at[step.key])


def drawn(settings: Settings, subject: str, form: str) -> str:
    """The drawing of a file, a run or a workflow.

    Raises:
        Failure: there is no such thing.
    """
    if graphs.is_file(subject):
        from weft.agents.orchestrator.drawing import picture_of, to_mermaid, to_svg

        picture = picture_of(graphs.read(subject).spec)
        return to_svg(picture) if form == "svg" else to_mermaid(picture)
    kind = pb.DRAWING_FORMAT_SVG if form == "svg" else pb.DRAWING_FORMAT_MERMAID

    async def work(orchestrator: Orchestrator) -> str:
        for request in (
            pb.DrawRequest(run=subject, format=kind),
            pb.DrawRequest(workflow=subject, format=kind),
        ):
            try:
                return (await orchestrator.stub.Draw(request)).drawing
            except grpc.aio.AioRpcError as failed:
                missing = {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT}
                if failed.code() not in missing:
                    raise
        raise failures.Failure(
            f"There is no file, run or workflow {subject!r}. `weft run list` lists runs, "
            "`weft run workflows` workflows."
        )

    return ask(settings, work)
