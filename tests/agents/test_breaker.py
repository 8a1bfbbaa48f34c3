"""What fails again and again is left alone, and tried again by one at a time."""

from __future__ import annotations

from datetime import timedelta

from weft.agents.breaker import Breaker, BreakerSettings


class Circuit(Breaker):
    """A breaker whose time stands still."""

    def __init__(self, failures: int = 2) -> None:
        self.now = 0.0
        super().__init__(BreakerSettings(failures=failures), "test", clock=lambda: self.now)

    def fail(self, times: int) -> None:
        for _ in range(times):
            assert self.enter()
            self.failed()


def test_it_opens_after_failures_in_a_row() -> None:
    circuit = Circuit()
    circuit.fail(1)
    assert circuit.enter()
    circuit.succeeded()
    circuit.fail(1)
    assert circuit.wait is None
    circuit.fail(1)
    assert not circuit.enter()
    assert circuit.wait == timedelta(seconds=10)
    circuit.now = 9.5
    assert not circuit.enter()
    assert circuit.wait == timedelta(seconds=0.5)


def test_one_probe_at_a_time() -> None:
    circuit = Circuit()
    circuit.fail(2)
    circuit.now = 11
    assert circuit.enter()
    assert not circuit.enter()
    assert circuit.wait is None  # nobody knows how long the probe takes
    circuit.left()  # its caller gave up: the next may try
    assert circuit.enter()
    circuit.failed()
    assert not circuit.enter()
    circuit.now = 22
    assert circuit.enter()
    circuit.succeeded()
    assert circuit.enter()
    assert circuit.enter()


def test_both_turns_are_logged(caplog) -> None:
    with caplog.at_level("INFO", "weft.agents"):
        circuit = Circuit(failures=1)
        circuit.fail(1)
        circuit.now = 11
        assert circuit.enter()
        circuit.succeeded()
    said = [(each.message, each.__dict__["circuit"]) for each in caplog.records]
    assert said == [("circuit open", "test"), ("circuit closed", "test")]
