"""An older tree of this repository: the one before the newest migration."""

from __future__ import annotations

import subprocess
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from tests.deploy.needs import missing

ROOT = Path(__file__).parents[2]
PORTIONS = ("core", "registry", "broker", "gateway", "agents", "proto")
_MIGRATIONS = "*/sql/[0-9][0-9][0-9][0-9]_*.sql"


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A tree. `newer`: the migrations that it has not got."""

    commit: str
    path: Path
    newer: list[str]

    @property
    def python_path(self) -> str:
        """What makes a process run it."""
        return ":".join(str(self.path / portion) for portion in PORTIONS)


def tree_before_newest_migration(folder: Path) -> Tree:
    """Unpacks it into a folder; without the repository's history the test is skipped."""
    try:
        newest = _git(
            *("log", "-1", "--no-renames", "--diff-filter=A", "--format=%H", "--", _MIGRATIONS)
        )
        commit = _git("rev-parse", "--verify", f"{newest}^") if newest else ""
    except (OSError, subprocess.CalledProcessError):
        commit = ""
    if not commit:
        missing("the history of the repository (git fetch --unshallow)")
    packed = subprocess.run(
        ["git", "-C", str(ROOT), "archive", commit, *PORTIONS], check=True, capture_output=True
    )
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    old, new = _migrations(folder), _migrations(ROOT)
    return Tree(commit=commit, path=folder, newer=sorted(new - old))


def _migrations(root: Path) -> set[str]:
    found = (path.relative_to(root) for path in root.glob("*/weft/**/sql/*.sql"))
    return {str(path) for path in found if path.name[:4].isdecimal()}


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
