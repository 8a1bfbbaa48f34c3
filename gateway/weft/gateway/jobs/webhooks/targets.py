"""Where webhooks may go.

A caller names the URL, and the gateway stands inside the network: whatever is not public is refused, unless its
operator allows it (SSRF; OWASP's cheat sheet, case 2).

A name is looked up for each attempt, every address that it has must be allowed, and the connection goes to the
address that was checked: a name that is given another address in between leads nowhere else.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

import httpx

from weft import rpc

Address = IPv4Address | IPv6Address

_LONGEST = 2_000
# Of these the ipaddress module says that they are global: what they lead to is told by what is inside.
_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
# fec0::/10 was private once, 192.88.99.0/24 relays to 6to4; ipaddress knows neither as special.
_NEVER = (IPv6Network("fec0::/10"), IPv4Network("192.88.99.0/24"))


class TargetRefused(rpc.InvalidArgument):
    """Webhooks may not go there."""

    reason = "WEBHOOK_TARGET_REFUSED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A URL and the address behind it."""

    url: httpx.URL
    address: Address


class Targets:
    """Checks URLs.

    Args:
        allowed: networks that are no public ones and may be reached all the same, by http as well, such as
            "10.1.0.0/16".

    Raises:
        ValueError: one is not a network.
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = tuple(ip_network(each) for each in allowed)

    def check(self, url: str, *, field: str = "url") -> None:
        """Refuses what can be seen to be wrong without looking the name up.

        Raises:
            TargetRefused: see there.
        """
        try:
            parsed = self._parse(url)
            literal = _literal(parsed.host)
            if literal is not None:
                self._check_address(parsed, literal)
        except TargetRefused as refused:
            raise TargetRefused(refused.message, field=field) from None

    async def resolve(self, url: str) -> Target:
        """Looks a name up, and checks every address that it has.

        Raises:
            TargetRefused: see there.
            rpc.Unavailable: the name cannot be looked up.
        """
        parsed = self._parse(url)
        literal = _literal(parsed.host)
        found = [literal] if literal is not None else await _look_up(parsed)
        for address in found:
            self._check_address(parsed, address)
        return Target(url=parsed, address=found[0])

    def _parse(self, url: str) -> httpx.URL:
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, UnicodeError, ValueError):
            raise TargetRefused("It is not a URL.") from None
        if len(url) > _LONGEST or any(character <= " " for character in url):
            raise TargetRefused("It is not a URL.")
        allowed = ("https", "http") if self._allowed else ("https",)
        if parsed.scheme not in allowed or not parsed.host:
            raise TargetRefused("It must be an https URL.")
        if parsed.userinfo:
            raise TargetRefused("It must not hold a password.")
        return parsed

    def _check_address(self, url: httpx.URL, address: Address) -> None:
        address = _within(address)
        if any(address in network for network in self._allowed):
            return
        public = address.is_global and not (
            address.is_multicast
            or address.is_reserved
            or any(address in network for network in _NEVER)
        )
        if not public:
            raise TargetRefused("It leads to an address that is not public.")
        if url.scheme != "https":
            raise TargetRefused("It must be an https URL.")


def _within(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if any(address in network for network in _NAT64) or int(address) >> 32 == 0:
        return IPv4Address(int(address) & 0xFFFFFFFF) if int(address) > 1 else address
    return address


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        pass
    try:
        # "127.1", "0x7f000001", "2130706433": what the system's resolver takes for addresses as well.
        return IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None


async def _look_up(url: httpx.URL) -> list[Address]:
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            url.raw_host.decode("ascii"), port, type=socket.SOCK_STREAM
        )
    except (OSError, UnicodeError):
        raise rpc.Unavailable("its name cannot be looked up") from None
    addresses = [ip_address(str(each[4][0]).partition("%")[0]) for each in found]
    if not addresses:
        raise rpc.Unavailable("its name has no address")
    return addresses
