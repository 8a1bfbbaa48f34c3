"""Certificates for tests: a mesh's authority, members of it, and strangers."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from pathlib import Path

from weft import mtls

TRUST_DOMAIN = "test.weft"
_NUMBERS = itertools.count()


class Certificates:
    """An authority, and folders with certificates of it."""

    def __init__(self, folder: Path, trust_domain: str = TRUST_DOMAIN) -> None:
        self.folder = folder
        self.authority = mtls.Authority.made(folder / "authority", trust_domain)
        self.trust_domain = trust_domain

    def files(
        self,
        who: mtls.SpiffeId | str,
        *,
        names: Iterable[str] = (),
        life: timedelta = mtls.LIFE,
        folder: Path | None = None,
    ) -> mtls.Files:
        """A certificate in a folder, which is replaced where it is given."""
        if isinstance(who, str):
            who = mtls.SpiffeId.parse(f"spiffe://{self.trust_domain}/{who}")
        leaf = self.authority.issue(who, names=names, life=life)
        folder = folder or self.folder / f"member-{next(_NUMBERS)}"
        return mtls.replace(folder, leaf, self.authority.bundle.read_bytes())

    def member(
        self, who: mtls.SpiffeId | str, *, names: Iterable[str] = (), life: timedelta = mtls.LIFE
    ) -> mtls.Credentials:
        """Credentials that nobody keeps up to date."""
        return mtls.Credentials(self.files(who, names=names, life=life))

    def part(self, part: str) -> mtls.Credentials:
        """Credentials of a part on this machine."""
        names = [mtls.part_name(self.trust_domain, part)]
        if part == "registry":  # xDS clients dial it by its address
            names.append("127.0.0.1")
        return self.member(f"part/{part}", names=names)

    def agents(self, *names: str) -> mtls.Credentials:
        """Credentials of a process that is these agents."""
        return self.member(mtls.agents_id(self.trust_domain, names))


@contextlib.asynccontextmanager
async def kept(credentials: mtls.Credentials) -> AsyncIterator[mtls.Credentials]:
    """Follows files, for the length of a block."""
    async with mtls.followed(credentials.files) as found:
        yield found
