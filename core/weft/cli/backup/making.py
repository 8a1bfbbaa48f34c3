"""Making a backup of a mesh that runs.

Redis first, PostgreSQL behind it. A message handled in between is in Redis again and its effects are in PostgreSQL, where
what was handled once is known; the other way round its effects would be lost. Both are of a moment after the command began:
what was acknowledged before is in both.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from weft.cli.backup import postgres, redis
from weft.cli.backup.manifest import FORMAT, SECRETS, File, Manifest, measured
from weft.cli.failures import Failure

# Folders of the embedded servers, whose content is in the dumps.
SERVERS = frozenset({"redis", "pg", "run", "log"})


async def back_up(
    folder: Path,
    *,
    redis_url: str | None,
    database_url: str | None,
    secrets: Path | None,
    report: Callable[[str], None],
) -> Manifest:
    """Writes a backup into a folder, which is made.

    Args:
        folder: where to; must not have anything in it.
        redis_url: what to dump; None: not that.
        database_url: what to dump; None: not that.
        secrets: the data folder whose keys go along; None: no keys.
        report: told in words what is done.

    Raises:
        Failure: something cannot be dumped; the folder has no manifest then.
        embedded.NotInstalled: a program is missing.
    """
    _make(folder)
    begin = datetime.now(UTC)
    of_redis = await redis.dump(redis_url, folder, report) if redis_url else None
    of_postgres = await postgres.dump(database_url, folder, report) if database_url else None
    keys = _copied_keys(secrets, folder) if secrets is not None else []
    written = [*(of_redis.files if of_redis else []), *keys]
    written += [of_postgres.file] if of_postgres else []
    files: list[File] = [await measured(folder, folder / name) for name in written]
    manifest = Manifest(
        format=FORMAT,
        weft=importlib.metadata.version("weft"),
        begin_time=begin.isoformat(),
        end_time=datetime.now(UTC).isoformat(),
        redis=of_redis,
        postgres=of_postgres,
        secrets=keys,
        files=files,
    )
    manifest.write(folder)
    return manifest


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        occupied = next(folder.iterdir(), None)
    except OSError as failed:
        raise Failure(f"{folder} cannot be written to: {failed.strerror}.") from failed
    if occupied is not None:
        raise Failure(f"{folder} is not empty. Name a new folder for each backup.")


def _copied_keys(data: Path, folder: Path) -> list[str]:
    """Copies the keys of a data folder; their names below the backup."""
    found = []
    for path in sorted(data.rglob("*.pem")):
        place = path.relative_to(data)
        if place.parts[0] in SERVERS:
            continue
        copy = folder / SECRETS / place
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        copy.touch(mode=0o600)
        shutil.copyfile(path, copy)
        found.append(copy.relative_to(folder).as_posix())
    return found
