"""The table of leases, by itself."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

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


async def test_leases_run_out_in_order_and_what_ended_or_was_extended_does_not() -> None:
    over: list[bytes] = []
    leases = Leases(0.1, lambda gone: over.extend(one.lease_id for one in gone))
    first, second, third = lease("1"), lease("2"), lease("3")
    leases.grant([first, second, third])
    assert leases.end(b"2") is second
    assert leases.end(b"2") is None
    await asyncio.sleep(0.05)  # it is time that is tested
    leases.extend(first)
    await wait_until(lambda: len(over) == 2)
    assert over == [b"3", b"1"]
    assert leases.ran_out(b"3")
    assert not leases.ran_out(b"2")
    assert not len(leases)


async def test_extending_for_ever_keeps_nothing() -> None:
    leases = Leases(60.0, lambda _: None)
    held = lease("1")
    leases.grant([held])
    for _ in range(1_000):
        leases.extend(held)
    assert leases.all() == [held]
    assert leases.end(b"1") is held
    assert not leases.all()
    leases.close()


STEPS = st.lists(
    st.tuples(st.sampled_from(["grant", "end", "extend", "shorter", "longer"]), st.integers(0, 9)),
    max_size=60,
)


@given(STEPS)
def test_a_table_of_leases_is_a_set_with_deadlines(steps: list[tuple[str, int]]) -> None:
    async def play() -> None:
        leases = Leases(100.0, lambda _: None)
        model: dict[bytes, Lease] = {}
        for action, number in steps:
            name = b"%d" % number
            if action == "grant" and name not in model:
                model[name] = lease(name.decode())
                leases.grant([model[name]])
            elif action == "end":
                assert leases.end(name) is model.pop(name, None)
            elif action == "extend" and name in model:
                leases.extend(model[name])
            elif action in {"shorter", "longer"}:
                leases.span = leases.span / 2 if action == "shorter" else leases.span * 2
            assert {one.lease_id for one in leases.all()} == set(model)
            assert all(leases.get(known) is held for known, held in model.items())
            assert all(held.deadline for held in model.values())
        leases.close()

    asyncio.run(play())


async def test_what_ran_out_while_the_process_stood_still_cannot_be_extended() -> None:
    over: list[Lease] = []
    leases = Leases(0.02, over.extend)
    held = lease("1")
    leases.grant([held])
    time.sleep(0.05)  # noqa: ASYNC251 no timer of the loop gets its turn
    leases.catch_up()
    assert over == [held]
    assert leases.get(b"1") is None
    leases.close()
