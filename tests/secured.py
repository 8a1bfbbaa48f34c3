"""A switch for tests that know nothing of it: with WEFT_TEST_MESH_TLS=on, all they start and call has mTLS and auth.

Every server asks for certificates, every channel brings one, identities are signed and no others are believed; what is not
encrypted cannot be opened at all. `make test-mtls` runs the support fleet's tests so, and those of the command with
`weft up --mtls`.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from grpc.aio._server import Server  # what grpc.aio.server() makes; grpc.aio.Server is abstract
from tests.certificates import TRUST_DOMAIN, Certificates

from weft import mtls, rpc
from weft.agents import Host
from weft.broker import Broker
from weft.registry import Registry
from weft.rpc.signing import Signer, Verifier

ON = os.environ.get("WEFT_TEST_MESH_TLS", "off") == "on"
# Tests call agents by their address too, as if they were a part: whose id is right is checked for all that goes by name.
_NAMES = [*(mtls.part_name(TRUST_DOMAIN, part) for part in ("registry", "broker")), "127.0.0.1"]


class Secured:
    """What servers, channels and hosts are given that are given nothing."""

    def __init__(self, folder: Path) -> None:
        self._certificates = Certificates(folder)
        self._folders = (folder / f"host-{number}" for number in itertools.count())
        self.signer = Signer(Ed25519PrivateKey.generate())
        self.client = self._certificates.member("client/test")
        self.registry = self._certificates.member("part/registry", names=_NAMES)
        self.broker = self._certificates.member("part/broker", names=_NAMES)

    def host(self) -> mtls.Credentials:
        """Credentials of a host, that is whatever agents it serves."""
        folder = next(self._folders)

        def issue(agents: Iterable[str]) -> None:
            who = mtls.agents_id(TRUST_DOMAIN, agents)
            self._certificates.files(who, names=_NAMES, folder=folder)

        files = self._certificates.files("client/host", names=_NAMES, folder=folder)
        return mtls.Credentials(files, issue=issue)


def _given(of: type, change: Callable[[dict[str, Any]], None]) -> Callable[..., None]:
    before = of.__init__

    @functools.wraps(before)
    def init(self: Any, *arguments: Any, **further: Any) -> None:
        change(further)
        before(self, *arguments, **further)

    return init


@contextlib.contextmanager
def secured(folder: Path) -> Iterator[Secured]:
    """For the length of a block, nothing speaks without certificates and no identity is believed that is not signed."""
    own = Secured(folder)

    def server(further: dict[str, Any]) -> None:
        if further.get("mtls") is None:
            further["mtls"] = own.registry
            further["verifier"] = Verifier(own.signer.public)

    def channel(further: dict[str, Any]) -> None:
        if further.get("mtls") is None:
            further["mtls"] = own.client
        if (identity := further.get("identity")) is not None and not identity.signature:
            further["identity"] = own.signer.sign(identity)

    def host(further: dict[str, Any]) -> None:
        further.setdefault("mtls", own.host())
        further.setdefault("identity_trust", own.signer.public)

    with pytest.MonkeyPatch.context() as patch:
        for of, change in (
            (rpc.Server, server),
            (rpc.Channel, channel),
            (Host, host),
            (Registry, lambda further: further.setdefault("mtls", own.registry)),
            (Broker, lambda further: further.setdefault("mtls", own.broker)),
        ):
            patch.setattr(of, "__init__", _given(of, change))
        _forbid_plain(patch)
        yield own


def _forbid_plain(patch: pytest.MonkeyPatch) -> None:
    """Nothing but the sockets of a process of its own goes unencrypted."""
    opened, bound = grpc.aio.insecure_channel, Server.add_insecure_port

    def insecure_channel(target: str, *arguments: Any, **further: Any) -> Any:
        assert target.startswith("unix:"), f"a channel to {target} would not be encrypted"
        return opened(target, *arguments, **further)

    def add_insecure_port(self: Any, address: str) -> int:
        assert address.startswith("unix:"), f"{address} would take calls that are not encrypted"
        return bound(self, address)

    patch.setattr(grpc.aio, "insecure_channel", insecure_channel)
    patch.setattr(Server, "add_insecure_port", add_insecure_port)
