"""The table of leases, by itself."""

from __future__ import annotations

from datetime import timedelta

from weft.broker.delivery.leases import Lease, Leases
from weft.rpc.testing import wait_until


def lease(name: str) -> Lease:
    return Lease(name.encode(), None, 0.0, 1, b"", b"", 10)


async def test_a_shorter_timeout_holds_for_new_leases_though_old_ones_last_longer() -> None:
    over: list[Lease] = []
    leases = Leases(60.0, over.extend)
    leases.grant([lease("old")])
    leases.span = 0.05
    leases.grant([lease("new")])
    await wait_until(lambda: [one.lease_id for one in over] == [b"new"], timedelta(seconds=1))
    leases.close()
