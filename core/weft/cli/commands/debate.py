"""`weft run debate`: agents debate a question, without a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from weft.cli import complete, graphs
from weft.cli.options import configured, detach_option, examples, json_option

if TYPE_CHECKING:
    from weft.cli.debaters import Debater
    from weft.config import Settings

_RULES = ("majority", "ranked", "weighted", "unanimity", "judge")


@click.command(
    epilog=examples(
        'weft run debate "Is 91 prime?"',
        'weft run debate "Is 341 prime?" --rule unanimity',
        'weft run debate "Is 91 prime?" --with anna --with ben --judge cleo',
        'weft run debate "Which city?" --with a.Say --with b.Say --show > debate.yaml',
    )
)
@click.argument("question")
@click.option(
    "--with",
    "targets",
    multiple=True,
    metavar="AGENT[.METHOD]",
    shell_complete=complete.skills,
    help="Who takes part, twice and more; by default all debaters in service.",
)
@click.option(
    "--rule", type=click.Choice(_RULES), default="majority", show_default=True, help="Who decides."
)
@click.option(
    "--rounds",
    type=click.IntRange(0, 5),
    help="Rounds in which they see what others said; 0: a vote. By default 2.",
)
@click.option(
    "--judge",
    "judging",
    metavar="AGENT[.METHOD]",
    shell_complete=complete.skills,
    help="Who decides ties, and by the rule judge everything.",
)
@click.option("--show", is_flag=True, help="Print the workflow instead of running it.")
@detach_option
@configured("registry")
@json_option
def debate(
    *,
    settings: Settings,
    question: str,
    targets: tuple[str, ...],
    rule: str,
    rounds: int | None,
    judging: str | None,
    show: bool,
    detach: bool,
    as_json: bool,
) -> int:
    """Have agents debate a question, and print what comes of it.

    All debaters in service take part, except the one that judges. A debater is an agent that serves
    weft.v1.DebaterService under a name of its own; docs/patterns.md says how one is written, and how a
    debate is decided.

    --with chooses debaters, or has other agents take part by a skill, AGENT.METHOD: the question goes into
    the field `question`, `text`, `query` or the like of its request, and the answer is read from `answer`,
    `text` or the like of its response; --show prints the workflow, to be changed where that is not right.
    """
    from weft.cli import connect, debaters, debating, running
    from weft.v1 import orchestrator_pb2

    if targets and len(targets) < debaters.FEWEST:
        raise click.UsageError(
            "A debate takes two agents and more: repeat --with, or leave it out."
        )
    if rule == "judge" and not judging:
        raise click.UsageError("The rule judge needs a --judge.")

    async def found() -> tuple[list[Debater], Debater | None]:
        registry = settings.registry
        judge = await debaters.named(registry, judging) if judging else None
        if targets:
            return [await debaters.named(registry, each) for each in targets], judge
        return await debaters.in_service(registry, but=judge), judge

    taking_part, judge = connect.run(found())
    spec = debating.spec_of(question, taking_part, rule=rule, rounds=rounds, judge=judge)
    if show:
        from weft.agents.orchestrator.forms import to_yaml

        graphs.write(to_yaml(spec), "-")
        return 0
    request = orchestrator_pb2.StartRunRequest(spec=spec)
    return running.begun(settings, request, detach=detach, as_json=as_json)
