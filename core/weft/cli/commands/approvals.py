"""`weft approvals`: what people have to decide before runs go on."""

from __future__ import annotations

import json
import sys
from datetime import UTC
from typing import TYPE_CHECKING, Any

import click

from weft.cli import complete, failures, output
from weft.cli.options import configured, examples, json_option

if TYPE_CHECKING:
    from weft.cli.orchestration import Orchestrator
    from weft.config import Settings
    from weft.v1 import orchestrator_pb2 as pb

_LEAST_DIGEST = 8  # digits of a digest that bind a decision to what was seen

_approval_argument = click.argument(
    "approval_id", metavar="APPROVAL", shell_complete=complete.approvals
)
_person_option = click.option(
    "--as", "person", default="", metavar="NAME", help="Who you are; by default your login."
)
_digest_option = click.option(
    "--digest",
    default="",
    help=f"Digest of what you saw, or its first {_LEAST_DIGEST} digits and more; else it is shown, and you are asked.",
)
_comment_option = click.option("--comment", default="", help="For the record.")
_yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group(
    invoke_without_command=True,
    epilog=examples(
        "weft approvals",
        "weft approvals show APPROVAL",
        'weft approvals approve APPROVAL --as ada --comment "as agreed with the customer"',
        "weft approvals reject APPROVAL --digest 4f1d2c9e",
    ),
)
@configured("registry")
@json_option
@click.pass_context
def approvals(ctx: click.Context, *, settings: Settings, as_json: bool) -> None:
    """Show what people have to decide, and decide it; with no command, list what is open."""
    if ctx.invoked_subcommand is None:
        _list(settings, state="open", run="", mine=False, person="", as_json=as_json)


@approvals.command(name="list", epilog=examples("weft approvals list --state any --run RUN"))
@click.option(
    "--state", type=click.Choice(("open", "ended", "any")), default="open", show_default=True
)
@click.option(
    "--run", default="", metavar="RUN", shell_complete=complete.runs, help="Of this run only."
)
@click.option("--mine", is_flag=True, help="Those only that you may decide.")
@_person_option
@configured("registry")
@json_option
def list_approvals(
    *, settings: Settings, state: str, run: str, mine: bool, person: str, as_json: bool
) -> None:
    """List approvals, those first that have to be decided first."""
    _list(settings, state=state, run=run, mine=mine, person=person, as_json=as_json)


@approvals.command(epilog=examples("weft approvals show APPROVAL"))
@_approval_argument
@configured("registry")
@json_option
def show(*, settings: Settings, approval_id: str, as_json: bool) -> None:
    """Show what is asked, what it is about, and its digest."""
    _print(_get(settings, approval_id), as_json=as_json)


@approvals.command(
    epilog=examples(
        "weft approvals approve APPROVAL", "weft approvals approve APPROVAL --digest 4f1d2c9e"
    )
)
@_approval_argument
@_digest_option
@_comment_option
@_yes_option
@_person_option
@configured("registry")
@json_option
def approve(
    *,
    settings: Settings,
    approval_id: str,
    digest: str,
    comment: str,
    yes: bool,
    person: str,
    as_json: bool,
) -> None:
    """Approve what is shown, and nothing else: the decision is bound to its digest."""
    seen = _seen(settings, approval_id, digest, "Approve this?", yes=yes)
    _decide(settings, seen, "APPROVED", comment, person, as_json=as_json)


@approvals.command(
    epilog=examples('weft approvals reject APPROVAL --comment "the amount is wrong"')
)
@_approval_argument
@_digest_option
@_comment_option
@_yes_option
@_person_option
@configured("registry")
@json_option
def reject(
    *,
    settings: Settings,
    approval_id: str,
    digest: str,
    comment: str,
    yes: bool,
    person: str,
    as_json: bool,
) -> None:
    """Reject what is shown."""
    seen = _seen(settings, approval_id, digest, "Reject this?", yes=yes)
    _decide(settings, seen, "REJECTED", comment, person, as_json=as_json)


@approvals.command(
    epilog=examples(
        "weft approvals edit APPROVAL",
        'weft approvals edit APPROVAL --with \'{"text": "It is on its way."}\'',
    )
)
@_approval_argument
@click.option(
    "--with", "given", metavar="JSON|@FILE|-", help="The message to approve; no editor is opened."
)
@_comment_option
@_person_option
@configured("registry")
@json_option
def edit(
    *,
    settings: Settings,
    approval_id: str,
    given: str | None,
    comment: str,
    person: str,
    as_json: bool,
) -> None:
    """Change the message in $VISUAL or $EDITOR, and approve it as it is then."""
    from weft.cli import orchestration, running, steps

    seen = _get(settings, approval_id)
    if not seen.editable:
        raise failures.Failure("This may not be changed. Approve or reject it as it is.")
    if given is not None:
        edited = running.message(given)
    else:
        before = json.dumps(steps.value(seen.shown), indent=2, ensure_ascii=False)
        text = click.edit(before + "\n", extension=".json")
        if text is None:
            raise failures.Failure("Nothing was saved; nothing is decided.")
        edited = orchestration.typed(text)
    edited.type = seen.shown.type
    _decide(settings, seen, "APPROVED", comment, person, edited=edited, as_json=as_json)


@approvals.command(epilog=examples("weft approvals watch --mine", "weft approvals watch --json"))
@click.option("--mine", is_flag=True, help="Those only that you may decide.")
@_person_option
@configured("registry")
@json_option
def watch(*, settings: Settings, mine: bool, person: str, as_json: bool) -> None:
    """Follow approvals: those that are open, then each that is asked for or ends."""
    from weft.cli import running

    out = output.console()

    async def work(orchestrator: Orchestrator) -> None:
        async for approval in orchestrator.watch_approvals(mine=mine):
            if as_json:
                output.print_line(output.as_json(approval))
            else:
                out.print(f"{approval.id}  {_state(approval):<9} {approval.run}  {approval.title}")

    running.ask(settings, work, person)


def _list(
    settings: Settings, *, state: str, run: str, mine: bool, person: str, as_json: bool
) -> None:
    from weft.cli import running
    from weft.v1 import orchestrator_pb2

    wanted = orchestrator_pb2.ApprovalState.Value(f"APPROVAL_STATE_{state.upper()}")
    request = orchestrator_pb2.ListApprovalsRequest(state=wanted, run=run, mine=mine)

    async def ask(orchestrator: Orchestrator) -> list[pb.Approval]:
        return await orchestrator.approvals(request)

    found = running.ask(settings, ask, person)
    if as_json:
        output.print_json([output.as_json(each) for each in found])
        return
    output.print_table(
        ["APPROVAL", "STATE", "UNTIL", "WORKFLOW", "RUN", "TITLE"],
        [
            [
                each.id,
                output.state(_state(each)),
                _until(each),
                each.workflow,
                each.run,
                each.title,
            ]
            for each in found
        ],
        "Nothing waits for a decision." if state == "open" else "There is no such approval.",
    )


def _get(settings: Settings, approval_id: str) -> pb.Approval:
    from weft.cli import running
    from weft.v1 import orchestrator_pb2

    async def ask(orchestrator: Orchestrator) -> pb.Approval:
        request = orchestrator_pb2.GetApprovalRequest(id=approval_id)
        return (await orchestrator.stub.GetApproval(request)).approval

    return running.ask(settings, ask)


def _seen(
    settings: Settings, approval_id: str, digest: str, question: str, *, yes: bool
) -> pb.Approval:
    """An approval that whoever decides has seen: here, or before, as its digest says."""
    found = _get(settings, approval_id)
    if digest:
        if len(digest) < _LEAST_DIGEST:
            raise click.UsageError(f"--digest takes {_LEAST_DIGEST} digits and more.")
        if not found.digest.startswith(digest.lower()):
            raise failures.Failure(
                "It has changed since: its digest is another. Look again: "
                f"weft approvals show {approval_id}"
            )
        return found
    if yes:
        return found
    if not sys.stdin.isatty():
        raise click.UsageError("Say what you saw with --digest, or --yes.")
    _print(found, as_json=False)
    click.confirm(question, abort=True, err=True)
    return found


def _decide(
    settings: Settings,
    seen: pb.Approval,
    verdict: str,
    comment: str,
    person: str,
    *,
    edited: Any = None,
    as_json: bool,
) -> None:
    from weft.cli import running
    from weft.v1 import orchestrator_pb2, workflow_pb2

    request = orchestrator_pb2.DecideApprovalRequest(
        id=seen.id,
        verdict=workflow_pb2.Verdict.Value(f"VERDICT_{verdict}"),
        digest=seen.digest,
        comment=comment,
        edited=edited,
    )

    async def ask(orchestrator: Orchestrator) -> pb.Approval:
        return (await orchestrator.stub.DecideApproval(request)).approval

    decided = running.ask(settings, ask, person)
    if as_json:
        output.print_json(output.as_json(decided))
    elif decided.HasField("decision"):
        click.echo(f"{decided.id} {_state(decided).lower()}; run {decided.run} goes on")
    else:
        count = len(decided.approvers)
        click.echo(f"{decided.id} has {count} of {decided.quorum} approvals")


def _print(approval: pb.Approval, *, as_json: bool) -> None:
    from weft.cli import steps

    if as_json:
        output.print_json(output.as_json(approval))
        return
    facts = {
        "approval": approval.id,
        "title": approval.title,
        "state": _state(approval).lower(),
        "run": f"{approval.run} ({approval.workflow}, {approval.step})",
        "until": _until(approval),
        "scope": approval.scope,
        "needs": f"{len(approval.approvers)} of {approval.quorum} have approved"
        if approval.quorum > 1
        else "",
        "by": approval.decision.subject,
        "comment": approval.decision.comment,
        "editable": "yes" if approval.editable else "",
        "type": approval.shown.type,
        "digest": approval.digest,
    }
    out = output.console()
    for name, value in facts.items():
        if value:
            out.print(f"{name:<10}{value}")
    output.print_json(steps.value(approval.shown))


def _state(approval: pb.Approval) -> str:
    from weft.v1 import workflow_pb2

    if not approval.HasField("decision"):
        return "OPEN"
    return workflow_pb2.Verdict.Name(approval.decision.verdict).removeprefix("VERDICT_")


def _until(approval: pb.Approval) -> str:
    if not approval.HasField("expire_time") or approval.HasField("decision"):
        return ""
    return output.until(approval.expire_time.ToDatetime(tzinfo=UTC))
