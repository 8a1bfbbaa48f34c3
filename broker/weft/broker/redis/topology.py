"""Which server is the primary: the only one, one of several, or whom the sentinels name."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

from weft.broker.redis.errors import ConnectionLost, StoreRefuses, StoreUnavailable
from weft.broker.redis.opening import ask
from weft.broker.redis.session import Terms
from weft.broker.redis.url import Account, Address, Kind, Url

_LOG = logging.getLogger("weft.broker")


class Finder(Protocol):
    """Says where the primary is now. Raises StoreUnavailable when there is none."""

    async def __call__(self) -> Address:
        """Its address."""
        ...


class One:
    """There is only one."""

    def __init__(self, address: Address) -> None:
        self._address = address

    async def __call__(self) -> Address:
        """Its address."""
        return self._address


class Candidates:
    """Several servers, one of which is the primary; which one changes with a failover."""

    def __init__(self, addresses: tuple[Address, ...], terms: Terms) -> None:
        self._addresses = addresses
        self._terms = terms
        self._last: Address | None = None

    async def __call__(self) -> Address:
        """The one that says it is the primary."""
        primaries: dict[Address, int] = {}
        failed: StoreUnavailable = ConnectionLost("No Redis answers.")
        for address, role in zip(self._addresses, await self._roles(), strict=True):
            if isinstance(role, StoreUnavailable):
                failed = role
            elif isinstance(role, BaseException):
                raise role
            elif role[0] == b"master":
                primaries[address] = len(role[2])
            else:
                failed = StoreRefuses(f"READONLY Redis at {address} is a replica")
        if not primaries:
            raise failed
        if len(primaries) > 1:
            _LOG.error(
                "%s all say that they are the primary; what one of them holds is lost to the others",
                " and ".join(map(str, primaries)),
            )
        if self._last not in primaries:
            self._last = max(primaries, key=primaries.__getitem__)
        return self._last

    async def _roles(self) -> list[Any]:
        terms = self._terms
        return await asyncio.gather(
            *(ask(address, terms.account, "ROLE") for address in self._addresses),
            return_exceptions=True,
        )


class Sentinels:
    """Sentinels know who is the primary of a name."""

    def __init__(self, addresses: tuple[Address, ...], name: str, terms: Terms) -> None:
        self._addresses = addresses
        self._name = name
        self._terms = terms

    async def __call__(self) -> Address:
        """Whom the first sentinel that answers names."""
        failed: StoreUnavailable = ConnectionLost("No sentinel was asked.")
        for sentinel in self._addresses:
            try:
                found = await ask(
                    *(sentinel, Account()),
                    *("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name),
                )
            except StoreUnavailable as error:
                failed = error
                continue
            if found is None:
                failed = ConnectionLost(f"The sentinel at {sentinel} knows no {self._name!r}.")
                continue
            return Address(found[0].decode(), int(found[1]))
        raise failed


def finder(url: Url, terms: Terms) -> Finder:
    """How the primary of a URL is found."""
    if url.kind is Kind.SENTINEL:
        return Sentinels(url.addresses, url.name, terms)
    if len(url.addresses) == 1:
        return One(url.addresses[0])
    return Candidates(url.addresses, terms)
