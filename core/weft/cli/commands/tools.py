"""`weft tools`: what agents did by their tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from weft.cli import output
from weft.cli.options import configured, examples, json_option

if TYPE_CHECKING:
    from weft.agents.tools.audit.record import Outcome, Use
    from weft.config import Settings

_LONGEST = 80  # characters of arguments in a table


@click.group(epilog=examples("weft tools uses", "weft tools uses --subject user:ann --tool fetch"))
def tools() -> None:
    """Show what agents did by their tools.

    Records are in the mesh's PostgreSQL: that of `weft up` on this machine, or --database-url.
    """


@tools.command(epilog=examples("weft tools uses --outcome PERMISSION_DENIED --limit 10 --json"))
@click.option("--tool", default="", metavar="NAME", help="Uses of this tool only.")
@click.option("--subject", default="", metavar="WHO", help="Of this identity only.")
@click.option("--tenant", default="", metavar="NAME", help="Of this tenant only.")
@click.option("--conversation", default="", metavar="ID", help="Of this conversation only.")
@click.option("--outcome", default="", metavar="CODE", help="With this outcome only, such as OK.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=50, show_default=True)
@configured("data", "database_url")
@json_option
def uses(*, settings: Settings, as_json: bool, limit: int, **wanted: str) -> None:
    """Show uses of tools, the newest first, also those that were refused."""
    from weft.agents.tools import DatabaseAudit
    from weft.agents.tools import database as records
    from weft.cli import connect, database

    async def read() -> list[tuple[Use, Outcome]]:
        async with await records(database.url(settings)) as opened:
            return await DatabaseAudit(opened).latest(**wanted, most=limit)

    found = connect.run(read())
    if as_json:
        output.print_json([_fields(use, outcome) for use, outcome in found])
        return
    output.print_table(
        ["BEGAN", "TOOL", "WHO", "TENANT", "OUTCOME", ">TOOK", "ARGUMENTS"],
        [
            [
                output.moment(use.began),
                use.tool,
                use.subject or "nobody",
                use.tenant,
                output.state(outcome.reason or outcome.code),
                "kept" if outcome.kept else output.milliseconds(outcome.duration),
                _short(use),
            ]
            for use, outcome in found
        ],
        "No use of a tool is on record.",
    )


def _short(use: Use) -> str:
    if use.arguments is None:
        return ""
    text = output.one_line(use.arguments)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _fields(use: Use, outcome: Outcome) -> dict[str, Any]:
    return {
        "id": str(use.id),
        "began": use.began.isoformat(),
        "tool": use.tool,
        "subject": use.subject,
        "tenant": use.tenant,
        "skill": use.skill,
        "conversation": use.conversation,
        "cause": use.cause,
        "trace_id": use.trace_id,
        "arguments": use.arguments,
        "outcome": outcome.code,
        "reason": outcome.reason,
        "seconds": outcome.duration.total_seconds(),
        "kept": outcome.kept,
    }
