"""Ways to a process's credentials: files that somebody else keeps, or certificates of the authority on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from weft.mtls import folder
from weft.mtls.authority import LIFE, Authority
from weft.mtls.credentials import Credentials
from weft.mtls.files import Files
from weft.mtls.ids import SpiffeId, agents_id

_PROCESSES = "processes"


@contextlib.asynccontextmanager
async def followed(files: Files, trust_domain: str = "") -> AsyncIterator[Credentials]:
    """Credentials from files that somebody else keeps up to date.

    Raises:
        ValueError: the files cannot be used.
    """
    credentials = await asyncio.to_thread(Credentials, files, trust_domain=trust_domain)
    async with _kept(credentials):
        yield credentials


class Means(Protocol):
    """Where certificates are; what is used of weft.config.Membership."""

    @property
    def files(self) -> tuple[Path, Path, Path] | None:
        """Certificate, key and roots; None: the authority of this machine issues."""

    @property
    def home(self) -> Path:
        """Folder of that authority."""

    @property
    def trust_domain(self) -> str:
        """Which it must be; empty: that of the certificate."""


@contextlib.asynccontextmanager
async def member(
    means: Means | None,
    who: Callable[[str], SpiffeId],
    *,
    names: Callable[[str], Sequence[str]] = lambda _: (),
) -> AsyncIterator[Credentials | None]:
    """Credentials as the settings say; None where there is no mTLS.

    Args:
        means: where certificates are.
        who: who this process is, in a trust domain, where it is issued a certificate here.
        names: DNS names and IP addresses of that certificate.

    Raises:
        ValueError: the certificates cannot be used.
    """
    async with contextlib.AsyncExitStack() as stack:
        found = None
        if means is not None and means.files is not None:
            certificate, key, ca = means.files
            files = Files(certificate=certificate, key=key, ca=ca)
            found = await stack.enter_async_context(followed(files, means.trust_domain))
        elif means is not None:
            found = await stack.enter_async_context(issued(means.home, who, names=names))
        yield found


@contextlib.asynccontextmanager
async def issued(
    home: Path,
    who: Callable[[str], SpiffeId],
    *,
    names: Callable[[str], Sequence[str]] = lambda _: (),
    life: timedelta = LIFE,
) -> AsyncIterator[Credentials]:
    """Credentials from the authority on this machine, issued anew at half their life, and gone with the process.

    Args:
        home: folder of the authority.
        who: who this process is, in a trust domain, as long as it serves no agents.
        names: DNS names and IP addresses of its certificate, in a trust domain.
        life: how long a certificate lives.

    Raises:
        ValueError: there is no authority that this process can use.
    """
    authority = await asyncio.to_thread(Authority.load, home)
    own = await asyncio.to_thread(_own, home, life)
    first, named = who(authority.trust_domain), names(authority.trust_domain)

    def issue(agents: Iterable[str]) -> None:
        # Loaded anew: its root may be another by now.
        authority = Authority.load(home)
        serving = sorted(agents)
        leaf = authority.issue(
            agents_id(authority.trust_domain, serving) if serving else first,
            names=named,
            life=life,
        )
        folder.replace(own, leaf, authority.bundle.read_bytes())

    try:
        await asyncio.to_thread(issue, ())
        # The roots are those of the mesh, whenever they change; the certificate is this process's own.
        found = folder.files_of(own)
        files = Files(certificate=found.certificate, key=found.key, ca=authority.bundle)
        credentials = await asyncio.to_thread(Credentials, files, issue=issue)
        async with _kept(credentials):
            yield credentials
    finally:
        await asyncio.to_thread(shutil.rmtree, own, ignore_errors=True)


@contextlib.asynccontextmanager
async def _kept(credentials: Credentials) -> AsyncIterator[None]:
    running = asyncio.create_task(credentials.run(), name="certificates")
    try:
        yield
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def _own(home: Path, life: timedelta) -> Path:
    """A new folder for this process; those of processes that were killed long ago go."""
    processes = home / _PROCESSES
    try:
        processes.mkdir(mode=0o700, exist_ok=True)
        for old in processes.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - old.stat().st_mtime > max(life, LIFE).total_seconds():
                    shutil.rmtree(old, ignore_errors=True)
        return Path(tempfile.mkdtemp(dir=processes))
    except OSError as failed:
        raise ValueError(f"{processes}: {failed.strerror or failed}") from failed
