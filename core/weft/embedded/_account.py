"""Under which account PostgreSQL runs: it refuses root, so root lends it another one."""

from __future__ import annotations

import asyncio
import os
import pwd
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from weft.embedded import _child
from weft.embedded._errors import NoAccount


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account for a server process. `owner`: who owns its files as the launcher sees them."""

    text: str
    owner: tuple[int, int]


def own() -> Account:
    """The account of this process."""
    return Account(text=_child.SAME_ACCOUNT, owner=(os.geteuid(), os.getegid()))


async def for_postgres(program: Path, folders: Sequence[Path]) -> Account:
    """The account that can run `program` and reach `folders`.

    An ordinary user keeps its own. Root takes `nobody`; where a folder on the way is closed to
    others, it takes `nobody` of a new user namespace, which for the file system is still root.
    Raises NoAccount when neither works. No folder of the user is ever opened up for it.
    """
    if os.geteuid() != 0:
        return own()
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise NoAccount(
            "PostgreSQL refuses to run as root and this machine has no user `nobody`. "
            "Start as an ordinary user, or set WEFT_DATABASE_URL."
        ) from None
    ids = f"{nobody.pw_uid}:{nobody.pw_gid}"
    real = Account(text=f"set:{ids}", owner=(nobody.pw_uid, nobody.pw_gid))
    mapped = Account(text=f"map:{ids}", owner=(0, 0))
    for account in (real, mapped):
        if await _can_run(account, program, folders):
            return account
    closed = _first_closed([program.parent, *folders])
    raise NoAccount(
        "PostgreSQL refuses to run as root. As `nobody` it cannot reach "
        f"{closed or program.parent}, and this machine allows no user namespace. "
        "Set WEFT_DATA to a folder that others can traverse (for example /var/lib/weft) and keep "
        "the virtual environment in such a folder too, or start as an ordinary user, "
        "or set WEFT_DATABASE_URL."
    )


async def _can_run(account: Account, program: Path, folders: Sequence[Path]) -> bool:
    # A trial instead of a look at modes: it sees ACLs, noexec mounts and missing libraries too.
    enter = 'program=$1; shift; for f; do cd "$f" || exit 1; done; exec "$program" --version'
    argv = ("/bin/sh", "-c", enter, "sh", str(program), *map(str, folders))
    return (await _child.run(argv, account=account.text)).ok


def _first_closed(paths: Sequence[Path]) -> Path | None:
    """The outermost folder on the way to one of `paths` that others may not traverse."""
    for path in paths:
        for folder in (*reversed(path.parents), path):
            if not folder.stat().st_mode & stat.S_IXOTH:
                return folder
    return None


async def give(folder: Path, account: Account) -> None:
    """Hands `folder` and all that is in it to `account`, when it is somebody else's (root only)."""
    if os.geteuid() == 0:
        await asyncio.to_thread(_chown, folder, *account.owner)


def _chown(folder: Path, uid: int, gid: int) -> None:
    if folder.stat().st_uid == uid:
        return
    # The folder itself last: a crash on the way is then noticed by its owner and done again.
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(Path(root) / name, uid, gid, follow_symlinks=False)
    os.chown(folder, uid, gid)
