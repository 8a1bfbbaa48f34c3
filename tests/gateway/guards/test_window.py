from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from weft.gateway.guards.window import Window


@given(st.lists(st.tuples(st.floats(0, 7), st.integers(0, 1)), max_size=60))
def test_counts_equal_those_of_a_list_of_events(steps):
    window = Window(timedelta(seconds=10))
    events = []
    now = 5_000.0
    for pause, failed in steps:
        now += pause
        window.record(now, failed)
        events.append((int(now), failed))
        recent = [f for second, f in events if second > int(now) - 10]
        assert (window.calls, window.failures) == (len(recent), sum(recent))


def test_an_old_window_is_empty_without_a_call():
    window = Window(timedelta(seconds=1))
    window.record(50.0, 1)
    window.turn(50.85)
    assert window.calls == 1
    window.turn(51.05)
    assert (window.calls, window.failures) == (0, 0)
