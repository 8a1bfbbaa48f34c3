"""`weft find`: which agents can do something, and why another was not found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from weft.cli import complete, output
from weft.cli.options import configured, examples, json_option

if TYPE_CHECKING:
    from weft.config import Settings
    from weft.v1 import discovery_pb2


@click.command(
    epilog=examples(
        "weft find angry customer wants a refund",
        "weft find --accepts weft.support.v1.Ticket",
        "weft find --capability lang:de --labels 'env in (prod, canary)' --version '^1.2'",
        "weft find --capability lang:de --explain",
    )
)
@click.argument("text", nargs=-1)
@click.option("--agent", default="", shell_complete=complete.agents, help="Name of the agent.")
@click.option("--service", default="", help="Full name of a gRPC service it serves.")
@click.option(
    "--capability",
    "capabilities",
    multiple=True,
    metavar="WORD",
    help="What it can do; may be repeated, then it must be able to do all.",
)
@click.option(
    "--labels",
    default="",
    metavar="SELECTOR",
    help="Labels, as Kubernetes selects by them: 'env=prod,gpu,!old'.",
)
@click.option(
    "--version",
    default="",
    metavar="RANGE",
    help="Versions, as npm writes ranges: '^1.2', '>=1.2.0 <2.0.0'.",
)
@click.option("--zone", "in_zone", default="", help="Failure domain it runs in.")
@click.option(
    "--accepts", default="", metavar="TYPE", help="Message type that a skill of it takes."
)
@click.option(
    "--produces", default="", metavar="TYPE", help="Message type that a skill of it answers with."
)
@click.option(
    "--explain", is_flag=True, help="Show of each instance what keeps it from being found."
)
@configured("registry")
@json_option
def find(
    *,
    settings: Settings,
    text: tuple[str, ...],
    capabilities: tuple[str, ...],
    in_zone: str,
    explain: bool,
    as_json: bool,
    **asked: str,
) -> None:
    """Find the agents that can do something.

    TEXT is looked for in what agents and their skills say of themselves, the best match first; the options
    narrow it, or stand alone. Only instances that take calls now are found; --explain says of the others
    why they are not.
    """
    from weft.cli import connect
    from weft.v1 import discovery_pb2

    query = discovery_pb2.AgentQuery(
        text=" ".join(text), capabilities=capabilities, zone=in_zone, **asked
    )
    if not query.ListFields():
        raise click.UsageError("Say what to look for: words, or one of the options.")
    if explain:
        answer = connect.run(_explain(settings.registry, query))
        _show_explained(answer, as_json=as_json)
    else:
        matches = connect.run(_find(settings.registry, query))
        _show(matches, as_json=as_json)


async def _find(
    address: str, query: discovery_pb2.AgentQuery
) -> Sequence[discovery_pb2.AgentMatch]:
    from weft.cli import connect

    async with connect.registry(address) as registry:
        return await registry.find(query)


async def _explain(address: str, query: discovery_pb2.AgentQuery) -> discovery_pb2.ExplainResponse:
    from weft.cli import connect

    async with connect.registry(address) as registry:
        return await registry.explain(query)


def _show(matches: Sequence[discovery_pb2.AgentMatch], *, as_json: bool) -> None:
    if as_json:
        output.print_json([output.as_json(match) for match in matches])
        return
    output.print_table(
        ["AGENT", ">INSTANCES", "SKILL", "WHAT IT DOES"],
        [
            [
                match.agent if first else "",
                str(len(match.instances)) if first else "",
                skill,
                said,
            ]
            for match in matches
            for first, skill, said in _lines(match)
        ],
        "Nobody who takes calls now can do this; --explain says why.",
    )


def _lines(match: discovery_pb2.AgentMatch) -> list[tuple[bool, str, str]]:
    lines = [(True, "", match.description)]
    for skill in match.skills:
        name = skill.path.rpartition("/")[2]
        lines.append((False, name + _places(skill), skill.description))
    return lines


def _places(skill: discovery_pb2.MatchedSkill) -> str:
    taken = f" takes it as {skill.accepts_at}" if skill.accepts_at else ""
    return taken + (f" gives it as {skill.produces_at}" if skill.produces_at else "")


def _show_explained(answer: discovery_pb2.ExplainResponse, *, as_json: bool) -> None:
    if as_json:
        output.print_json(output.as_json(answer))
        return
    output.print_table(
        ["AGENT", "INSTANCE", "FOUND", "WHY NOT"],
        [
            [
                one.agent,
                one.instance_id[:8],
                "yes" if one.found else "no",
                "; ".join(miss.reason for miss in one.misses),
            ]
            for one in answer.explanations
        ],
        "There is no instance at all. `weft agents` lists the agents that were ever registered.",
    )
    left = answer.considered - len(answer.explanations)
    if left:
        output.console().print(f"{left:,} further instances miss by as much or more.")
