"""The key that a mesh's identities are signed with: named by a setting, else in the data folder of `weft up`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from weft.cli import failures

if TYPE_CHECKING:
    from weft.config import Settings
    from weft.rpc.signing import Signer
    from weft.v1.identity_pb2 import Identity

_FILE = "identity.pem"


def key_file(settings: Settings) -> Path:
    """Where the key is, or would be."""
    if settings.identity_key:
        return Path(settings.identity_key)
    return settings.data.resolve() / _FILE


def signer(settings: Settings, *, make: bool = False) -> Signer:
    """Signs with the mesh's key; `make`: which is made where there is none.

    Raises:
        WrongSetting: it cannot be read.
    """
    from weft.rpc.signing import Signer

    path = key_file(settings)
    with failures.settings_checked("WEFT_IDENTITY_KEY"):
        if make:
            return Signer.made(path, lifetime=settings.identity_ttl)
        return Signer.load(path, lifetime=settings.identity_ttl)


def person(settings: Settings, name: str) -> Identity:
    """Somebody at this machine, as the agents of its mesh believe it; unsigned where there is no key."""
    from weft.v1.identity_pb2 import Identity

    # Who can read the key may do anything; saying so asks for no scopes that the next skill would lack.
    identity = Identity(subject=f"person:{name}", display_name=name, all_scopes=True)
    return signer(settings).sign(identity) if _is_there(settings) else identity


def operator(settings: Settings) -> Identity | None:
    """Whoever runs the command, where this machine has the key; None: calls are made in nobody's name."""
    if not _is_there(settings):
        return None
    import getpass

    return person(settings, getpass.getuser())


def renewing(settings: Settings) -> Callable[[Identity], Identity]:
    """Signs identities of old messages anew, where this machine has the key and they were signed with it."""
    if not _is_there(settings):
        return lambda identity: identity
    from weft.rpc.signing import Verifier

    own = signer(settings)
    # One that nobody vouched for is not vouched for now.
    believed = Verifier(own.public).believes
    return lambda identity: own.sign(identity) if believed(identity) else identity


def _is_there(settings: Settings) -> bool:
    if settings.identity_key:
        return True
    # The key in the data folder is that of the mesh on this machine; agents elsewhere know another.
    hosts = [at.rpartition(":")[0].strip("[]") for at in settings.registry.split(",")]
    here = all(host in {"localhost", "::1"} or host.startswith("127.") for host in hosts)
    return here and os.access(key_file(settings), os.R_OK)
