"""Where requests may go whose URL somebody else names: webhooks, and what a model wants to read.

A caller names the URL, and who sends stands inside the network: whatever is not public is refused, unless the
operator allows it (SSRF; OWASP's cheat sheet, case 2).

A name is looked up for each attempt, every address that it has must be allowed, and the connection goes to the
address that was checked: a name that is given another address in between leads nowhere else.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection, Iterable
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
# Of this the ipaddress module says that it is global: what it leads to is told by what is inside.
_NAT64 = IPv6Network("64:ff9b::/96")
# What ipaddress calls global, here or in another version of Python, and does not lead to a host of the public network.
_NEVER = (
    IPv4Network("192.0.0.0/24"),  # services of the network itself, such as its NAT (RFC 6890, 7723)
    IPv4Network("192.88.99.0/24"),  # relays to 6to4 (RFC 7526)
    IPv6Network(
        "64:ff9b:1::/48"
    ),  # NAT64 of the local network: who knows where its IPv4 is (RFC 8215)
    IPv6Network("2001::/23"),  # protocols' own: Teredo, benchmarks, ORCHID (RFC 2928)
    IPv6Network("3fff::/20"),  # documentation (RFC 9637)
    IPv6Network("5f00::/16"),  # segment routing (RFC 9602)
    IPv6Network("fec0::/10"),  # private once (RFC 3879)
)
_ISATAP = (0x00005EFE, 0x02005EFE)  # before the IPv4 address in an interface id (RFC 5214)


class TargetRefused(rpc.InvalidArgument):
    """Webhooks may not go there."""

    reason = "WEBHOOK_TARGET_REFUSED"


class AddressRefused(TargetRefused):
    """It leads to an address that is not public."""


class NameUnknown(rpc.Unavailable):
    """Its name cannot be looked up."""


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
        plaintext: whether http is good enough for public addresses.
        ports: that may be reached; None: any.
        hosts: names that may be reached, such as "example.org", or "*.example.org" for all below it; None: any.

    Raises:
        ValueError: one is not a network.
    """

    def __init__(
        self,
        allowed: Iterable[str] = (),
        *,
        plaintext: bool = False,
        ports: Collection[int] | None = None,
        hosts: Collection[str] | None = None,
    ) -> None:
        self._allowed = tuple(ip_network(each) for each in allowed)
        self._plaintext = plaintext
        self._ports = None if ports is None else frozenset(ports)
        self._hosts = None if hosts is None else frozenset(each.lower() for each in hosts)

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
            NameUnknown: the name cannot be looked up.
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
        allowed = ("https", "http") if self._allowed or self._plaintext else ("https",)
        if parsed.scheme not in allowed or not parsed.host:
            raise TargetRefused(f"It must be an {' or '.join(allowed)} URL.")
        if parsed.userinfo:
            raise TargetRefused("It must not hold a password.")
        if self._ports is not None and _port(parsed) not in self._ports:
            raise TargetRefused(f"Its port is not one of {sorted(self._ports)}.")
        # Before the name is looked up: names that are looked up can tell somebody something as well.
        if self._hosts is not None and self._hosts.isdisjoint(_names(parsed)):
            raise TargetRefused("Its host is not one of those that are allowed.")
        return parsed

    def _check_address(self, url: httpx.URL, address: Address) -> None:
        inner = _within(address)
        if any(inner in network for network in self._allowed):
            return
        if not _is_public(inner) or any(address in network for network in _NEVER):
            raise AddressRefused("It leads to an address that is not public.")
        if url.scheme != "https" and not self._plaintext:
            raise TargetRefused("It must be an https URL.")


def _is_public(address: Address) -> bool:
    return address.is_global and not (
        address.is_multicast or address.is_reserved or any(address in network for network in _NEVER)
    )


def _within(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64 or int(address) >> 32 == 0:
        return IPv4Address(int(address) & 0xFFFFFFFF) if int(address) > 1 else address
    if int(address) >> 32 & 0xFFFFFFFF in _ISATAP:
        return IPv4Address(int(address) & 0xFFFFFFFF)
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
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            url.raw_host.decode("ascii"), _port(url), type=socket.SOCK_STREAM
        )
    except (OSError, UnicodeError):
        raise NameUnknown("its name cannot be looked up") from None
    addresses = [ip_address(str(each[4][0]).partition("%")[0]) for each in found]
    if not addresses:
        raise NameUnknown("its name has no address")
    return addresses


def _names(url: httpx.URL) -> list[str]:
    """A host's name, and the patterns that stand for all that is below another."""
    host = url.raw_host.decode("ascii").lower().removesuffix(".")
    labels = host.split(".")
    return [host, *("*." + ".".join(labels[count:]) for count in range(1, len(labels)))]


def _port(url: httpx.URL) -> int:
    return url.port if url.port is not None else (443 if url.scheme == "https" else 80)
