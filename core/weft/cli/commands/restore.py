"""`weft restore`: a mesh as it was when it was backed up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from weft.cli import output
from weft.cli.commands.backup import only_option
from weft.cli.options import configured, examples, json_option

if TYPE_CHECKING:
    from weft.cli.backup import Manifest
    from weft.config import Settings


@click.command(
    epilog=examples(
        "weft restore --from /backup/2026-11-22 --data ./data",
        "weft restore --from /backup/2026-11-22 --database-url postgresql://weft@db/weft --redis-url redis://redis:6379/0",
    )
)
@click.option(
    "--from",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="FOLDER",
    help="The backup.",
)
@click.option("--with-secrets", is_flag=True, help="Also its keys, into --data.")
@click.option("--force", is_flag=True, help="Replace what is there.")
@only_option
@configured("data", "database_url", "redis_url")
@json_option
def restore(
    *,
    settings: Settings,
    folder: Path,
    with_secrets: bool,
    force: bool,
    only: str | None,
    as_json: bool,
) -> None:
    """Bring a backup back, into a data folder for `weft up`, or into servers of yours.

    Stop all parts first. Every file is checked before anything is changed. What is not empty is left alone, unless
    --force is given.
    """
    from weft.cli import connect
    from weft.cli.backup import Manifest

    manifest = Manifest.read(folder)
    connect.run(_restored(settings, folder, manifest, only=only, secrets=with_secrets, force=force))
    if as_json:
        output.print_json(manifest.as_json())
    else:
        click.echo(f"restored what was there at {manifest.begin_time}")


async def _restored(
    settings: Settings,
    folder: Path,
    manifest: Manifest,
    *,
    only: str | None,
    secrets: bool,
    force: bool,
) -> None:
    from weft.cli.backup import restore as bring_back
    from weft.cli.backup import servers

    def report(text: str) -> None:
        click.echo(text, err=True)

    await manifest.verify(folder, report)
    async with servers.to_restore(settings, only, report) as found:
        await bring_back(
            folder,
            manifest,
            redis_url=found.redis_url,
            database_url=found.database_url,
            secrets=settings.data.resolve() if secrets else None,
            force=force,
            report=report,
        )
