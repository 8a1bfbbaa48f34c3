"""Which server wrote a data folder: a file beside the data, so that no other one opens it by chance.

It is needed most for Redis: an older server may start *empty* on a newer one's data, without a word.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from weft.embedded._binaries import Program
from weft.embedded._errors import Incompatible, NotInstalled
from weft.embedded._files import replace_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Implementation and newest version that wrote the data."""

    impl: str
    version: tuple[int, ...]

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The identity in the file, None if there is none. Raises Incompatible if it is damaged."""
        try:
            text = path.read_text()
        except FileNotFoundError:
            return None
        try:
            content = json.loads(text)
            version = tuple(int(part) for part in content["version"].split("."))
            return cls(impl=str(content["impl"]), version=version)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Incompatible(
                f"{path} is damaged; it should say which server wrote the data."
            ) from None

    def write(self, path: Path) -> None:
        """Writes the file atomically."""
        version = ".".join(map(str, self.version))
        replace_file(path, json.dumps({"impl": self.impl, "version": version}) + "\n")

    def __str__(self) -> str:
        return f"{self.impl} {'.'.join(map(str, self.version))}"


async def choose(
    programs: AsyncIterator[Program],
    *,
    path: Path,
    fits: Callable[[Identity, Program], bool],
    install: str,
    remedy: str,
) -> Program:
    """The first program that `fits` the data whose identity is in `path`, or the first of all.

    The identity is written before the program touches the data. Raises NotInstalled, telling to
    `install`, or Incompatible, telling the `remedy`.
    """
    known = Identity.read(path)
    seen: list[Program] = []
    async for program in programs:
        seen.append(program)
        if known is None or fits(known, program):
            newest = program.version if known is None else max(known.version, program.version)
            Identity(impl=program.vendor, version=newest).write(path)
            return program
    if known is None:
        raise NotInstalled(install)
    found = ", ".join(map(str, seen)) or "no server at all"
    raise Incompatible(
        f"The data in {path.parent} was written by {known}; found here: {found}. {remedy}"
    )


def same_or_newer(known: Identity, program: Program) -> bool:
    """The same implementation, no downgrade."""
    return program.vendor == known.impl and program.version >= known.version


def same_major(known: Identity, program: Program) -> bool:
    """The same major version: PostgreSQL's minor releases share one format on disk, both ways."""
    return program.vendor == known.impl and program.version[:1] == known.version[:1]
