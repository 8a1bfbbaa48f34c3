"""Who this process is in a mesh with mTLS."""

from __future__ import annotations

import contextlib
import getpass
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

import click

from weft import config
from weft.cli import failures

if TYPE_CHECKING:
    from weft.config import Settings
    from weft.mtls import Credentials, Roles, SpiffeId

_SETTINGS = "weft.settings"
_WRONG = "WEFT_MTLS_*"
DEFAULT_TRUST_DOMAIN = "weft.local"
OPTIONS = ("mtls_certificate", "mtls_key", "mtls_ca")
"""Settings that commands take which run a part."""


def remember(settings: Settings) -> None:
    """Keeps the settings of the command that runs, options and all, for `as_client`."""
    context = click.get_current_context(silent=True)
    if context is not None:
        context.meta[_SETTINGS] = settings


@contextlib.asynccontextmanager
async def as_part(
    settings: Settings, part: str, listen: str = ""
) -> AsyncIterator[Credentials | None]:
    """Credentials of registry, broker or gateway; None where there is no mTLS.

    Args:
        settings: of the process.
        part: which.
        listen: where it listens, by which clients of xDS know it.

    Raises:
        WrongSetting: they cannot be used.
    """

    def who(trust_domain: str) -> SpiffeId:
        from weft.mtls import part_id

        return part_id(trust_domain, part)

    def names(trust_domain: str) -> Sequence[str]:
        from weft.mtls import part_name

        own = part_name(trust_domain, part)
        return [own, *_addresses(listen)] if part == "registry" else [own]

    async with _member(settings, who, names) as found:
        yield found


@contextlib.asynccontextmanager
async def as_client(settings: Settings | None = None) -> AsyncIterator[Credentials | None]:
    """Credentials of whoever runs the command; None where there is no mTLS.

    Args:
        settings: of the process; None: those of the command that runs.

    Raises:
        WrongSetting: they cannot be used.
    """
    context = click.get_current_context(silent=True)
    if settings is None and context is not None:
        settings = context.meta.get(_SETTINGS)

    def who(trust_domain: str) -> SpiffeId:
        from weft.mtls import client_id

        return client_id(trust_domain, getpass.getuser())

    async with _member(settings or config.load(), who) as found:
        yield found


def roles(settings: Settings) -> Roles:
    """Which agents ids may be that do not name them."""
    from weft.mtls import Roles

    with failures.settings_checked("WEFT_MTLS_AGENTS"):
        return Roles.read(settings.mtls_agents)


@contextlib.asynccontextmanager
async def _member(
    settings: Settings,
    who: Callable[[str], SpiffeId],
    names: Callable[[str], Sequence[str]] = lambda _: (),
) -> AsyncIterator[Credentials | None]:
    with failures.settings_checked(_WRONG):
        means = config.membership(settings)
    if means is None:  # and nothing of it is imported
        yield None
        return
    from weft import mtls

    async with contextlib.AsyncExitStack() as stack:
        with failures.settings_checked(_WRONG):
            found = await stack.enter_async_context(mtls.member(means, who, names=names))
        yield found


def _addresses(listen: str) -> list[str]:
    """Names by which clients reach what listens here."""
    host = listen.rpartition(":")[0].strip("[]")
    found = ["localhost", "127.0.0.1", "::1", socket.gethostname().lower()]
    anywhere = host in {"", "0.0.0.0", "::"}  # noqa: S104 compared, not bound
    if anywhere:
        with contextlib.suppress(OSError):
            found += {str(of[4][0]) for of in socket.getaddrinfo(socket.gethostname(), None)}
    return list(dict.fromkeys([*found, *([] if anywhere else [host])]))
