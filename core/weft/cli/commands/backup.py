"""`weft backup`: all that a mesh knows, in a folder."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from weft.cli import output
from weft.cli.options import configured, examples, json_option

if TYPE_CHECKING:
    from weft.config import Settings

only_option = click.option(
    "--only", type=click.Choice(["postgres", "redis"]), help="Leave the other one alone."
)


@click.command(
    epilog=examples(
        "weft backup --to /backup/{time}",
        "weft backup --to /backup/2026-11-22 --database-url postgresql://weft@db/weft --redis-url redis://redis:6379/0",
    )
)
@click.option(
    "--to",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Where to; made, or empty. {time} in it is the time, such as 2026-11-22T031700Z.",
)
@click.option(
    "--with-secrets",
    is_flag=True,
    help="Also the keys (*.pem) in --data, by which identities are signed.",
)
@only_option
@configured("data", "database_url", "redis_url")
@json_option
def backup(
    *, settings: Settings, folder: Path, with_secrets: bool, only: str | None, as_json: bool
) -> None:
    """Back up a mesh that runs: `weft up` on this machine, or servers of yours.

    Whatever was acknowledged before the command began is in it. The folder is readable by you alone; it holds customers'
    data and, with --with-secrets, keys. Restore it by `weft restore`.
    """
    from weft.cli import connect
    from weft.cli.backup import back_up, servers

    found = servers.running(settings, only)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")
    folder = Path(str(folder).replace("{time}", now))
    made = connect.run(
        back_up(
            folder,
            redis_url=found.redis_url,
            database_url=found.database_url,
            secrets=settings.data.resolve() if with_secrets else None,
            report=lambda text: click.echo(text, err=True),
        )
    )
    if as_json:
        output.print_json(made.as_json())
    else:
        size = sum(file.size for file in made.files)
        click.echo(f"{folder}: {len(made.files)} files, {size:,} bytes")
