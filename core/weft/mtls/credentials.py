"""What a process shows of itself and whom it believes, kept up to date while it runs."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc

from weft.mtls.authority import Leaf
from weft.mtls.files import Files, load
from weft.mtls.folder import replace
from weft.mtls.ids import SpiffeId, part_name

log = logging.getLogger("weft.mtls")

WATCH = timedelta(seconds=2)
_RETRY = 60.0  # seconds, at least, between two attempts to issue a certificate
PROVIDER = "weft"
"""Name of the certificates in the xDS bootstrap."""


class WrongServer(ConnectionError):
    """Who answers at an address is not who is registered there."""


class Credentials:
    """Certificate, key and roots of a process.

    New connections get what the files hold then; open ones go on. Files that cannot be used, as halves of a change, leave
    things as they were.

    Args:
        files: where they are.
        trust_domain: which it must be; empty: that of the certificate.
        issue: writes the files anew, at half the life of the certificate; None: somebody else does.

    Attributes:
        generation: counts up when the files were changed.

    Raises:
        ValueError: the files cannot be used.
    """

    def __init__(
        self,
        files: Files,
        *,
        trust_domain: str = "",
        issue: Callable[[Iterable[str]], None] | None = None,
    ) -> None:
        self.files = files
        self.generation = 0
        self._issue = issue
        self._agents: set[str] = set()
        self._stamp = files.stamp()
        self._current = load(files)
        self._turn = threading.Lock()  # `look` is for a thread, and `serve` may be in another
        self._complaint = ""
        self._issued = time.monotonic()
        self.trust_domain = trust_domain or self._current.who.trust_domain
        if self._current.who.trust_domain != self.trust_domain:
            raise ValueError(
                f"{files.certificate} is of {self._current.who.trust_domain}, not of {self.trust_domain}"
            )
        self._warn()

    @property
    def who(self) -> SpiffeId:
        """Who this process is."""
        return self._current.who

    def seconds_left(self) -> float:
        """Until the certificate expires; below 0: since it has."""
        return self._current.ends.timestamp() - time.time()

    def expiry(self) -> float:
        """When the certificate expires, in seconds since 1970."""
        return self._current.ends.timestamp()

    # Servers

    def server(self) -> grpc.ServerCredentials:
        """Of a gRPC server, whose clients must bring a certificate. Handshakes take what the files hold then."""
        told = self._current

        def fetch() -> Any:
            nonlocal told
            if told is self._current:
                return None  # as before
            told = self._current
            return self._configuration()

        return grpc.dynamic_ssl_server_credentials(
            self._configuration(), fetch, require_client_authentication=True
        )

    def _configuration(self) -> Any:
        now = self._current
        return grpc.ssl_server_certificate_configuration(
            [(now.key, now.certificate)], root_certificates=now.ca
        )

    # Clients

    def channel(self, target: str, part: str) -> tuple[grpc.ChannelCredentials, Any]:
        """Credentials and options of a channel to a part at "host:port" or "ipv4:IP:port,IP:port", as of now.

        By a host name, that name must be in the part's certificate, as always in TLS. By an IP address, which many share, it
        is the part's name in the trust domain, such as "registry.weft.local".
        """
        now = self._current
        credentials = grpc.ssl_channel_credentials(now.ca, now.key, now.certificate)
        if not _is_by_ip(target):
            return credentials, ()
        name = part_name(self.trust_domain, part)
        return credentials, (("grpc.ssl_target_name_override", name),)

    def xds_channel(self) -> grpc.ChannelCredentials:
        """Credentials of a channel to an agent by name: whose certificate is right is told by the registry."""
        now = self._current
        # Without that word no certificate of an agent fits, for it names no host: such a connection fails.
        return grpc.xds_channel_credentials(
            grpc.ssl_channel_credentials(now.ca, now.key, now.certificate)
        )

    def bootstrap(self) -> dict[str, Any]:
        """`certificate_providers` of the xDS bootstrap (gRFC A29): gRPC follows the files by itself."""
        return {PROVIDER: {"plugin_name": "file_watcher", "config": self.bootstrap_files()}}

    def bootstrap_files(self) -> dict[str, str]:
        """The files, as the xDS bootstrap names them."""
        return {
            "certificate_file": str(self.files.certificate),
            "private_key_file": str(self.files.key),
            "ca_certificate_file": str(self.files.ca),
            "refresh_interval": f"{WATCH.total_seconds():g}s",
        }

    @property
    def context(self) -> ssl.SSLContext:
        """For a connection of asyncio to an agent, as of now; pass its transport to `check_server`."""
        return self._current.context

    # Other programs

    def copied(self, folder: Path) -> Files:
        """Puts what this process shows now into a folder, in one step, for a program that sees only what is replaced.

        Raises:
            OSError: it cannot be written.
        """
        now = self._current
        return replace(folder, Leaf(certificate=now.certificate, key=now.key), now.ca)

    # Keeping up

    async def run(self) -> None:
        """Follows the files, and issues the certificate anew where it can, for ever; for a task of its own."""
        while True:
            await asyncio.sleep(WATCH.total_seconds())
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Takes what the files hold now, if they changed; issues the certificate anew, if it is time."""
        with self._turn:
            self._look()

    def _look(self) -> None:
        if self._issue is not None and self._is_due():
            self._renew()
        stamp = self.files.stamp()
        if stamp == self._stamp:
            return
        try:
            found = load(self.files)
            if found.who.trust_domain != self.trust_domain:
                raise ValueError(f"{found.who} is not of {self.trust_domain}")  # noqa: TRY301 told as others are
        except ValueError as failed:
            # Half written perhaps: it is looked at again, and said once.
            if self._complaint != str(failed):
                log.warning("new certificates cannot be used", extra={"cause": str(failed)})
            self._complaint = str(failed)
            return
        self._complaint = ""
        self._stamp, self._current = stamp, found
        self.generation += 1
        log.info("certificate renewed", extra={"id": str(found.who), "expires": f"{found.ends}"})
        self._warn()

    def serve(self, agents: Collection[str]) -> None:
        """Makes this process these agents, beside those that it is, where it issues its certificate itself."""
        with self._turn:
            if self._issue is not None and not self._agents.issuperset(agents):
                self._agents.update(agents)
                self._renew()
                self._look()

    def _is_due(self) -> bool:
        now = self._current
        half = (now.ends - now.begins).total_seconds() / 2
        if not now.issued_by_own:  # its root is believed no longer
            half = math.inf
        rested = time.monotonic() - self._issued > min(_RETRY, half / 10)
        return self.seconds_left() < half and rested

    def _renew(self) -> None:
        assert self._issue is not None
        self._issued = time.monotonic()
        try:
            self._issue(self._agents)
        except (OSError, ValueError) as failed:
            log.warning("a certificate cannot be issued", extra={"cause": str(failed)})

    def _warn(self) -> None:
        if not self._current.issued_by_own:
            log.warning(
                "the certificate is of no root in the CA file; whoever believes the same roots refuses it",
                extra={"certificate": str(self.files.certificate), "ca": str(self.files.ca)},
            )


def check_server(transport: Any, expected: Collection[str]) -> None:
    """Sees that a server is one of those that are expected there.

    Args:
        transport: of an asyncio connection that is encrypted.
        expected: SPIFFE ids.

    Raises:
        WrongServer: it is not.
    """
    names = _names(transport)
    if len(names) != 1 or names[0] not in expected:
        raise WrongServer(
            f"its certificate is of {', '.join(names) or 'nobody'}, and not of "
            f"{' or '.join(sorted(expected)) or 'anybody who is registered'}"
        )


def check_member(transport: Any, trust_domain: str) -> None:
    """Sees that a server is of a trust domain, whoever of it.

    Args:
        transport: of an asyncio connection that is encrypted.
        trust_domain: which.

    Raises:
        WrongServer: it is not.
    """
    names = _names(transport)
    if len(names) != 1 or not names[0].startswith(f"spiffe://{trust_domain}/"):
        raise WrongServer(f"its certificate is of {', '.join(names) or 'nobody'}")


def _names(transport: Any) -> list[str]:
    certificate = transport.get_extra_info("peercert") or {}
    return [name for kind, name in certificate.get("subjectAltName", ()) if kind == "URI"]


def _is_by_ip(target: str) -> bool:
    for scheme in ("ipv4:", "ipv6:"):
        target = target.removeprefix(scheme)
    try:
        for address in target.split(","):
            ipaddress.ip_address(address.rpartition(":")[0].strip("[]"))
    except ValueError:
        return False
    return True
