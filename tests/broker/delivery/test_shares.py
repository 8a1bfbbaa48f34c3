"""How credit is shared among priorities."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from weft.broker.delivery.shares import ALL, WEIGHTS, Shares

CREDITS = st.integers(1, 300)
READY = st.integers(1, 7).map(lambda bits: bits << 1)


@given(st.lists(st.tuples(CREDITS, READY), min_size=1, max_size=60))
def test_all_credit_is_shared_and_no_more_among_those_that_wait(
    rounds: list[tuple[int, int]],
) -> None:
    shares = Shares()
    for credit, ready in rounds:
        split = shares.split(credit, ready)
        assert sum(split.values()) == credit
        assert all(count > 0 and ready >> priority & 1 for priority, count in split.items())


@given(st.lists(CREDITS, min_size=1, max_size=60))
def test_each_has_its_weight_but_for_one_message(rounds: list[int]) -> None:
    shares = Shares()
    given: Counter[int] = Counter()
    for credit in rounds:
        given.update(shares.split(credit, ALL))
    for priority, weight in WEIGHTS.items():
        assert abs(given[priority] - sum(rounds) * weight / sum(WEIGHTS.values())) <= 2


def test_the_lowest_gets_its_turn_of_single_credits() -> None:
    shares = Shares()
    given = [next(iter(shares.split(1, ALL))) for _ in range(120)]
    assert Counter(given) == {1: 80, 2: 30, 3: 10}


def test_who_has_nothing_to_read_saves_nothing_up() -> None:
    shares = Shares()
    for _ in range(100):
        shares.split(10, 1 << 3)
    split = shares.split(12, ALL)
    assert split == {1: 8, 2: 3, 3: 1}
