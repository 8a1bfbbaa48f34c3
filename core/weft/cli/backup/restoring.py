"""Bringing a backup back, into servers that nobody uses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from weft.cli.backup import postgres, redis
from weft.cli.backup.manifest import SECRETS, Manifest
from weft.cli.failures import Failure


async def restore(
    folder: Path,
    manifest: Manifest,
    *,
    redis_url: str | None,
    database_url: str | None,
    secrets: Path | None,
    force: bool,
    report: Callable[[str], None],
) -> None:
    """Restores a backup whose files were verified.

    Args:
        folder: of the backup.
        manifest: of it.
        redis_url: where to; None: not that.
        database_url: where to; None: not that.
        secrets: the data folder for its keys; None: not these.
        force: replaces what is there.
        report: told in words what is done.

    Raises:
        Failure: nothing was changed if the target is in use or not empty; else a part may be there, and the restore can be
            run again with `force`.
    """
    keys = _places(folder, manifest, secrets) if secrets is not None else {}
    # All refusals before the first change.
    if manifest.postgres and database_url:
        await postgres.refuse_unfit(database_url, manifest.postgres, force=force)
    if manifest.redis and redis_url:
        await redis.refuse_unfit(redis_url, force=force)
    for copy, place in keys.items():
        if place.exists() and place.read_bytes() != copy.read_bytes() and not force:
            raise Failure(f"{place} is there already and is another one. Replace it: --force.")
    if manifest.postgres and database_url:
        await postgres.restore(database_url, manifest.postgres, folder, report)
    if manifest.redis and redis_url:
        await redis.restore(redis_url, manifest.redis, folder, report)
    for copy, place in keys.items():
        report(f"keys: {place}")
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.touch(mode=0o600)
        shutil.copyfile(copy, place)


def _places(folder: Path, manifest: Manifest, data: Path) -> dict[Path, Path]:
    return {folder / name: data / Path(name).relative_to(SECRETS) for name in manifest.secrets}
