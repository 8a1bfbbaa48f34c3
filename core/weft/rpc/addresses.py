"""Addresses of a part that runs several times, such as the registry: "10.0.0.7:7070,10.0.0.8:7070"."""

from __future__ import annotations

import ipaddress
import random
import socket
from collections.abc import Iterator


class Addresses:
    """Where replicas of one part are. One address stands for itself, and may be a name with many.

    The first choice is made at random, once for each object, so that callers spread; then it is kept until it fails.

    Args:
        text: "host:port", joined by commas.

    Raises:
        ValueError: there is none.
    """

    def __init__(self, text: str) -> None:
        self._all = [address.strip() for address in text.split(",") if address.strip()]
        if not self._all:
            raise ValueError("name at least one address, HOST:PORT")
        random.shuffle(self._all)

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def current(self) -> str:
        """The one in use."""
        return self._all[0]

    def advance(self) -> None:
        """Goes on to the next one, for the present one failed."""
        self._all.append(self._all.pop(0))

    @property
    def target(self) -> str:
        """A gRPC target that fails over from each address to the next.

        A single address is left as it is: a name is gRPC's to resolve, again and again. Of several, names are resolved
        here and now, since gRPC takes a list of IP addresses only; a name that cannot be is left out.
        """
        if len(self._all) == 1:
            return self._all[0]
        found = [place for address in self._all for place in _resolved(address)]
        if not found:
            return self._all[0]
        if all(ip.version == 4 for ip, _ in found):  # noqa: PLR2004 of the protocol
            return "ipv4:" + ",".join(f"{ip}:{port}" for ip, port in found)
        return "ipv6:" + ",".join(f"[{_as_6(ip)}]:{port}" for ip, port in found)


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _resolved(address: str) -> list[tuple[_Address, int]]:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        number = int(port)
        return [(ipaddress.ip_address(host), number)]
    except ValueError:
        pass
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    # Whoever listens on all of a name's addresses is there once; IPv4 first, as servers of Weft listen by default.
    entries.sort(key=lambda entry: entry[0] != socket.AF_INET)
    kind = entries[0][0]
    return [(ipaddress.ip_address(e[4][0]), int(e[4][1])) for e in entries if e[0] == kind]


def _as_6(ip: _Address) -> str:
    return f"::ffff:{ip}" if isinstance(ip, ipaddress.IPv4Address) else str(ip)
