"""Reads what the nodes of a cluster say of each other.

https://redis.io/docs/latest/commands/cluster-nodes/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from weft.broker.redis.slots import SHARDS, SLOT_OF_SHARD
from weft.broker.redis.url import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one node says of another, or of itself.

    Attributes:
        epoch: the claim with the greatest one wins, by the rules of the cluster.
        slots: ranges, both ends included.
    """

    address: Address
    primary: bool
    epoch: int
    slots: tuple[tuple[int, int], ...]


def rows(said: bytes, asked: Address) -> Iterator[Row]:
    """The lines of CLUSTER NODES. `asked`: who said it, since a node may not know its own address."""
    for line in said.decode().splitlines():
        _, where, flags, _, _, _, epoch, _, *ranges = line.split(" ")
        kinds = flags.split(",")
        if "noaddr" in kinds or "handshake" in kinds:
            continue
        host, _, port = where.partition("@")[0].rpartition(":")
        yield Row(
            address=Address(host or asked.host, int(port or asked.port)),
            primary="master" in kinds,
            epoch=int(epoch),
            slots=tuple(_range(text) for text in ranges if not text.startswith("[")),
        )


def owners(found: Iterable[Row]) -> list[Address] | None:
    """Who has each shard, the config shard last; None when some slot of ours has nobody."""
    best: list[Row | None] = [None] * len(SHARDS)
    for row in found:
        if not row.primary:
            continue
        for place, slot in enumerate(SLOT_OF_SHARD):
            other = best[place]
            if (other is None or row.epoch > other.epoch) and _has(row, slot):
                best[place] = row
    known = [row.address for row in best if row is not None]
    return known if len(known) == len(best) else None


def _has(row: Row, slot: int) -> bool:
    return any(first <= slot <= last for first, last in row.slots)


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)
