"""`weft migrate`: every part's schema, before the parts of a new version start."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from weft.cli import output
from weft.cli.options import configured, examples, json_option

if TYPE_CHECKING:
    from weft.cli.schemas import Schema
    from weft.config import Settings

_ALSO = re.compile(r"([a-z_][a-z0-9_]*)=([\w.]+)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """A migration that was run, or is to be."""

    schema: str
    migration: str


@click.command(
    epilog=examples(
        "weft migrate --database-url postgresql://weft@db/weft",
        "weft migrate --check",
        "weft migrate --also shop=shop.sql",
    )
)
@click.option(
    "--check", is_flag=True, help="Change nothing; exit status 1 when there is something to do."
)
@click.option(
    "--also",
    multiple=True,
    metavar="SCHEMA=PACKAGE",
    help="Migrations of agents of your own; may be repeated.",
)
@configured("data", "database_url")
@json_option
@click.pass_context
def migrate(
    ctx: click.Context, *, settings: Settings, check: bool, also: tuple[str, ...], as_json: bool
) -> None:
    """Bring the schemas of all parts up to date, and say what was done.

    Parts do it themselves when they start, unless WEFT_MIGRATE is off. Each schema is changed in one transaction, so that
    a migration which fails changes nothing of it. Parts of the version before may run meanwhile.
    """
    from weft.cli import connect, database
    from weft.cli.schemas import SCHEMAS

    schemas = [*SCHEMAS, *map(_also, also)]
    url = database.url(settings)
    steps = connect.run(_migrated(url, [each for each in schemas if each.usable()], check=check))
    if as_json:
        name = "pending" if check else "migrated"
        output.print_json({name: [asdict(step) for step in steps]})
    else:
        output.print_table(
            ["SCHEMA", "TO DO" if check else "DONE"],
            [[step.schema, step.migration] for step in steps],
            "Everything is up to date.",
        )
    if check and steps:
        ctx.exit(1)


def _also(text: str) -> Schema:
    from weft.cli import failures
    from weft.cli.schemas import Schema

    given = _ALSO.fullmatch(text)
    if given is None:
        raise click.UsageError(f"{text!r} is not SCHEMA=PACKAGE, such as shop=shop.sql.")
    try:
        there = importlib.util.find_spec(given[2])
    except ImportError:
        there = None
    if there is None:
        raise failures.WrongSetting(f"There is no package {given[2]!r} to import.")
    return Schema(name=given[1], packages=(given[2],))


async def _migrated(url: str, schemas: list[Schema], *, check: bool) -> list[_Step]:
    from weft.postgres import Database

    found: list[_Step] = []
    for schema in schemas:
        async with await Database.connect(url, schema.name, pool_size=1) as database:
            for package in schema.packages:
                names = await (
                    database.pending(package) if check else database.migrate(package, anyway=True)
                )
                found += [_Step(schema=schema.name, migration=name) for name in names]
    return found
