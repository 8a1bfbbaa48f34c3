"""The servers of Redis that take writes, by a URL of any form: one, that of a sentinel, or those of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import quote

import redis.asyncio

from weft import embedded
from weft.broker.redis import cluster_map, errors, opening, topology
from weft.broker.redis.session import Terms
from weft.broker.redis.url import Address, Kind, Url

_SILENCE = 5.0  # seconds, of a server that is asked who is the primary


@dataclass(frozen=True, slots=True, kw_only=True)
class Primary:
    """A primary, and which slots are its own; all of them where there is no cluster."""

    address: Address
    slots: tuple[tuple[int, int], ...] = ((0, 16_383),)


async def of(where: Url) -> list[Primary]:
    """The primaries of a URL.

    Raises:
        StoreUnavailable: nobody answers.
    """
    if where.kind is not Kind.CLUSTER:
        terms = Terms(
            account=where.account,
            database=where.database,
            library="",
            silence=_SILENCE,
            replica_limit=_SILENCE,
            cluster=False,
        )
        return [Primary(address=await topology.finder(where, terms)())]
    failed: Exception = errors.ConnectionLost("No node of the cluster answers.")
    for seed in where.addresses:
        try:
            said = await opening.ask(seed, where.account, "CLUSTER", "NODES")
        except errors.StoreUnavailable as error:
            failed = error
            continue
        found = [row for row in cluster_map.rows(said, seed) if row.primary and row.slots]
        return [Primary(address=row.address, slots=row.slots) for row in found]
    raise failed


def client(primary: Primary, where: Url, patience: timedelta) -> redis.asyncio.Redis:
    """A client of a primary. `patience`: for one answer."""
    address = primary.address
    user, password = quote(where.account.user, safe=""), quote(where.account.password, safe="")
    account = f"{user}:{password}@" if password else ""
    if not address.port:
        return embedded.redis_client(
            f"unix://{account}{quote(address.host)}?db={where.database}", timeout=patience
        )
    return embedded.redis_client(f"redis://{account}{address}/{where.database}", timeout=patience)
