"""Becomes a server process: takes its account, binds its life to the launcher's, then execs.

Run as a script between fork and exec, where a `preexec_fn` would run Python in the forked copy of a
process full of threads. Everything is imported before root is given up: the interpreter may lie
in a folder that the server's account cannot read.

    python -I -S _exec.py PARENT SIGNAL ACCOUNT PROGRAM [ARGUMENT...]

PARENT: process id of the launcher, 0 to ask for no death signal. SIGNAL: number of the signal
that the kernel sends when the launcher dies. ACCOUNT: `same`, `set:UID:GID` or `map:UID:GID`.
"""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)
_CLONE_NEWUSER = 0x10000000  # unshare(2)
_LAUNCHER_GONE = 125
_ENVIRONMENT = {"PATH": os.defpath, "HOME": "/", "LC_ALL": "C", "TZ": "UTC"}


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _take_account(libc: ctypes.CDLL, account: str) -> None:
    kind, _, ids = account.partition(":")
    if kind == "same":
        return
    uid, gid = (int(part) for part in ids.split(":"))
    if kind == "set":
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
        return
    # user_namespaces(7): one's own id may be mapped to any other, once setgroups is denied.
    own_uid, own_gid = os.geteuid(), os.getegid()
    _check(libc.unshare(_CLONE_NEWUSER), "unshare")
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/gid_map", f"{gid} {own_gid} 1")
    _write("/proc/self/uid_map", f"{uid} {own_uid} 1")


def main(argv: list[str]) -> None:
    """Execs PROGRAM; returns only by an exception."""
    parent, death_signal, account = int(argv[0]), int(argv[1]), argv[2]
    libc = ctypes.CDLL(None, use_errno=True)
    _take_account(libc, account)
    if parent and sys.platform == "linux":
        # After the change of account, which clears the death signal (prctl(2)).
        _check(libc.prctl(_PR_SET_PDEATHSIG, death_signal), "prctl")
        if os.getppid() != parent:  # it died before the signal was asked for
            os._exit(_LAUNCHER_GONE)
    os.umask(0o077)
    os.execve(argv[3], argv[3:], _ENVIRONMENT)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
