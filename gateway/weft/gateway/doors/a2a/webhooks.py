"""URLs that callers give to be told at: which of them may be called, and how.

A URL from outside must not reach the inside (specification, 13.2): it is https, without credentials, and every address
of its host is a public one. It is looked up once for each delivery, and the connection goes to the address that was checked,
so that a name which changes its mind in between gains nothing. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

import httpx

from weft import rpc

_LONGEST = 2_000  # characters
_LOOKUP = 5.0  # seconds
_FIELD = "url"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class UrlRefused(rpc.InvalidArgument):
    """This gateway does not call this URL."""

    reason = "PUSH_URL_REFUSED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A URL that may be called."""

    url: httpx.URL
    """With the address in the place of the host."""
    host: str
    """For the header Host."""
    name: str
    """For TLS."""


class Webhooks:
    """Checks URLs.

    Args:
        allowed: hosts that may be called though they are inside, and by http; as in a URL, without port.
    """

    def __init__(self, allowed: Collection[str] = ()) -> None:
        self._allowed = frozenset(each.lower().strip("[]") for each in allowed)

    async def resolve(self, url: str) -> Target:
        """Looks up a URL.

        Raises:
            UrlRefused: it may not be called.
            rpc.Unavailable: its host cannot be looked up now.
        """
        parts = self._split(url)
        host = parts.hostname or ""
        address = await self._address(host, parts.port or (443 if parts.scheme == "https" else 80))
        shown = f"[{address}]" if address.version == 6 else str(address)  # noqa: PLR2004 of IP
        port = f":{parts.port}" if parts.port is not None else ""
        query = f"?{parts.query}" if parts.query else ""
        return Target(
            url=httpx.URL(f"{parts.scheme}://{shown}{port}{parts.path or '/'}{query}"),
            host=parts.netloc,
            name=host,
        )

    def _split(self, url: str) -> SplitResult:
        if not url or len(url) > _LONGEST or not url.isascii() or not url.isprintable():
            raise UrlRefused("must be a URL of visible ASCII characters", field=_FIELD)
        try:
            parts = urlsplit(url)
            known = parts.hostname is not None and parts.port != 0
        except ValueError:
            known = False
        if not known or " " in url or "\\" in url:
            raise UrlRefused("is no URL", field=_FIELD)
        if parts.username is not None or parts.password is not None:
            raise UrlRefused("must not hold credentials", field=_FIELD)
        if parts.scheme != "https" and not (
            parts.scheme == "http" and parts.hostname in self._allowed
        ):
            raise UrlRefused("must be https", field=_FIELD)
        return parts

    async def _address(self, host: str, port: int) -> Address:
        try:
            async with asyncio.timeout(_LOOKUP):
                found = await asyncio.get_running_loop().getaddrinfo(
                    host, port, type=socket.SOCK_STREAM
                )
        except (TimeoutError, socket.gaierror, UnicodeError):
            raise rpc.Unavailable(f"{host} cannot be looked up.") from None
        addresses = [ipaddress.ip_address(str(each[4][0]).partition("%")[0]) for each in found]
        if not addresses:
            raise rpc.Unavailable(f"{host} cannot be looked up.")
        if host not in self._allowed and not all(map(is_public, addresses)):
            raise UrlRefused("must not lead to an address inside", field=_FIELD)
        return addresses[0]


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet, and hides none that is not."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None,))[-1]
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not (address.is_multicast or address.is_reserved)


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
