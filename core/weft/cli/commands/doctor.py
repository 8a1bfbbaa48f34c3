"""`weft doctor`: what is wrong with an installation."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from weft.cli import output
from weft.cli.options import configured, examples, json_option

if TYPE_CHECKING:
    from weft.cli.doctor import Finding
    from weft.config import Settings


@click.command(epilog=examples("weft doctor", "weft doctor --json", "weft doctor --all"))
@click.option("--all", "everything", is_flag=True, help="Show what is in order as well.")
@configured("data", "gateway", "registry", "broker", "database_url", "redis_url")
@json_option
@click.pass_context
def doctor(ctx: click.Context, *, settings: Settings, everything: bool, as_json: bool) -> None:
    """Find what is wrong with an installation, say why it matters and what to do.

    It looks at this machine, registry, broker, gateway, agents, queues, PostgreSQL and Redis, and changes
    nothing. The exit status is 1 when something does not work.
    """
    from weft.cli import connect
    from weft.cli.doctor import examine

    found = connect.run(examine(settings, os.environ))
    if as_json:
        output.print_json([asdict(finding) for finding in found])
    else:
        _show(found, everything=everything)
    if any(finding.state == "fail" for finding in found):
        ctx.exit(1)


def _show(found: list[Finding], *, everything: bool) -> None:
    out = output.console()
    order = {"fail": 0, "warn": 1, "ok": 2}
    for finding in sorted(found, key=lambda each: order[each.state]):
        if finding.state == "ok" and not everything:
            continue
        out.print(output.state(finding.state), f"{finding.check}: {finding.what}", soft_wrap=True)
        for line in filter(None, (finding.why, finding.do)):
            out.print(f"     {line}", soft_wrap=True)
    counts = {state: sum(each.state == state for each in found) for state in order}
    out.print(f"{counts['ok']} ok, {counts['warn']} warnings, {counts['fail']} failures")
