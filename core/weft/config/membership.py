"""How a process of the mesh comes by its certificate, worked out from settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weft.config.settings import Settings

_HOME, _MARK = "mtls", "on"


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """Where certificates are.

    Attributes:
        files: certificate, key and roots, that somebody else keeps up to date; None: the authority of this machine issues.
        home: folder of that authority.
        trust_domain: which it must be; empty: that of the certificate.
    """

    files: tuple[Path, Path, Path] | None
    home: Path
    trust_domain: str


def authority_home(data: Path) -> Path:
    """Where the authority of this machine is."""
    return data.resolve() / _HOME


def mark(data: Path, *, on: bool) -> None:
    """Says to processes of this machine whether the mesh of `weft up` has mTLS."""
    path = authority_home(data) / _MARK
    if on:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.touch()
    else:
        path.unlink(missing_ok=True)


def membership(settings: Settings) -> Membership | None:
    """How this process comes by its certificate; None: there is no mTLS.

    Raises:
        ValueError: of the files, only some are named.
    """
    named = (settings.mtls_certificate, settings.mtls_key, settings.mtls_ca)
    home = authority_home(settings.data)
    if settings.mtls == "off" or (
        settings.mtls == "auto" and not any(named) and not _here(settings, home)
    ):
        return None
    if any(named) and not all(named):
        raise ValueError("mtls_certificate, mtls_key and mtls_ca belong together; name all three")
    certificate, key, ca = map(Path, named)
    return Membership(
        files=(certificate, key, ca) if any(named) else None,
        home=home,
        trust_domain=settings.mtls_trust_domain,
    )


def _here(settings: Settings, home: Path) -> bool:
    """Whether the mesh is that of a `weft up --mtls` on this machine: the registry elsewhere is of another."""
    hosts = [
        address.strip().rpartition(":")[0].strip("[]") for address in settings.registry.split(",")
    ]
    here = all(host in {"localhost", "::1"} or host.startswith("127.") for host in hosts)
    return here and (home / _MARK).exists()
