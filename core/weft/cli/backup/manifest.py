"""What is in a backup. The file is written last: a folder without it is none."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from weft.cli.failures import Failure

NAME = "manifest.json"
FORMAT = 1
SECRETS = "secrets"
"""Folder of the keys in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file of a backup. `name`: below its folder. `size`: bytes."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresPart:
    """What was dumped of PostgreSQL. `version`: of the server."""

    file: str
    version: str
    schemas: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisPart:
    """What was dumped of Redis: a file for each primary. `database`: the number of what is ours in them."""

    files: list[str]
    vendor: str
    version: str
    database: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All of a backup. `begin_time`: what was acknowledged before it is in the backup."""

    format: int
    weft: str
    begin_time: str
    end_time: str
    redis: RedisPart | None
    postgres: PostgresPart | None
    secrets: list[str]
    files: list[File]

    def as_json(self) -> dict[str, Any]:
        """The manifest as it is written."""
        return asdict(self)

    def write(self, folder: Path) -> None:
        """Ends a backup."""
        fresh = folder / f"{NAME}.new"
        with _private(fresh) as file:
            file.write(json.dumps(self.as_json(), indent=2).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(folder / NAME)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a backup.

        Raises:
            Failure: there is none, or this version cannot read it.
        """
        try:
            content = json.loads((folder / NAME).read_text())
        except FileNotFoundError:
            raise Failure(
                f"{folder} holds no finished backup: it has no {NAME}, which is written last."
            ) from None
        except (OSError, ValueError) as failed:
            raise Failure(f"{folder / NAME} cannot be read: {failed}") from failed
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise Failure(
                f"{folder} is a backup of another format than {FORMAT}. Restore it by the version "
                "of Weft that made it, or a newer one."
            )
        try:
            found = cls(
                **content
                | {
                    "redis": content["redis"] and RedisPart(**content["redis"]),
                    "postgres": content["postgres"] and PostgresPart(**content["postgres"]),
                    "files": [File(**each) for each in content["files"]],
                }
            )
            found._check_names()
        except (KeyError, TypeError, ValueError) as failed:
            raise Failure(f"{folder / NAME} is damaged: {failed}.") from failed
        return found

    def _check_names(self) -> None:
        """Raises ValueError when it names what was not summed, or what is elsewhere."""
        names = {file.name for file in self.files}
        used = {*self.secrets, *(self.redis.files if self.redis else [])}
        used |= {self.postgres.file} if self.postgres else set()
        for name in names | used:
            path = PurePosixPath(name)
            if name not in names or path.is_absolute() or ".." in path.parts:
                raise ValueError(f"it names {name!r}, which is no file of the backup")
        for name in self.secrets:
            if PurePosixPath(name).parts[0] != SECRETS:
                raise ValueError(f"it has {name!r} for a key, which is not in {SECRETS}")

    async def verify(self, folder: Path, report: Callable[[str], None]) -> None:
        """Reads every file.

        Raises:
            Failure: one is missing or is not what was written.
        """
        for file in self.files:
            report(f"checking {file.name} ({file.size:,} bytes)")
            path = folder / file.name
            try:
                found = await measured(folder, path)
            except OSError as failed:
                raise Failure(
                    f"The backup lacks {file.name}: {failed.strerror}. Nothing was restored."
                ) from failed
            if found != file:
                raise Failure(
                    f"{file.name} is not what was written: {found.size:,} bytes, SHA-256 {found.sha256}; it was "
                    f"{file.size:,}, {file.sha256}. Nothing was restored: use another copy."
                )


async def measured(folder: Path, path: Path) -> File:
    """Size and sum of a file."""

    def work() -> File:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        name = path.relative_to(folder).as_posix()
        return File(name=name, size=path.stat().st_size, sha256=digest)

    return await asyncio.to_thread(work)


def _private(path: Path) -> Any:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    return os.fdopen(fd, "wb")
