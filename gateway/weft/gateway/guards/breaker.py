"""Circuit breakers, one per agent and method: the door of `circuit` for the request path.

    permit = breakers.enter(agent, method, deadline)   # raises CircuitOpen with retry_after
    ...                                                # the call
    permit.done(code)                                  # or permit.cancelled()

or `with breakers.enter(...):` where a microsecond does not matter.
"""

from __future__ import annotations

import logging
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from weft import rpc
from weft.gateway.guards.circuit import (
    CLOSED,
    OPEN,
    BreakerSettings,
    Circuit,
    CircuitState,
    Permit,
    Transition,
)

_log = logging.getLogger("weft.gateway")


class Breakers:
    """The circuits of one gateway process; for one event loop.

    Args:
        on_transition: told of each state change, for a metric; must not raise. Changes are logged anyway.
        clock: seconds, monotonic.
        spread: a number in [0, 1) for the jitter of open times.
    """

    def __init__(
        self,
        settings: BreakerSettings | None = None,
        *,
        on_transition: Callable[[Transition], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings or BreakerSettings()
        self._on_transition = on_transition
        self._clock = clock
        self._spread = spread
        self._circuits: OrderedDict[tuple[str, str], Circuit] = OrderedDict()
        self._holds: Mapping[tuple[str, str], str] = {}

    def enter(self, agent: str, method: str, deadline: rpc.Deadline | None = None) -> Permit:
        """Leave to call `method` of `agent` once.

        `deadline` is the caller's; without it a call that runs out of time always counts as a failure.

        Raises:
            CircuitOpen: not now; `retry_after` says when.
        """
        key = (agent, method)
        circuit = self._circuits.get(key)
        if circuit is None:
            circuit = self._add(key)
        else:
            self._circuits.move_to_end(key)
        return circuit.enter(deadline)

    def is_open(self, agent: str, method: str) -> bool:
        """Whether calls are refused now."""
        circuit = self._circuits.get((agent, method))
        return circuit is not None and circuit.state is OPEN

    def hold(self, holds: Mapping[tuple[str, str], str]) -> None:
        """Holds circuits open or closed, by agent and method; all others are on their own."""
        before, self._holds = self._holds, dict(holds)
        for key in before.keys() | holds.keys():
            circuit = self._circuits.get(key)
            if circuit is not None:
                circuit.hold(self._held(key))
            elif key in holds:
                self._add(key)

    def snapshot(self) -> Sequence[CircuitState]:
        """Every circuit as it is now, the least recently used first."""
        return [circuit.look() for circuit in self._circuits.values()]

    def _add(self, key: tuple[str, str]) -> Circuit:
        if len(self._circuits) >= self._settings.capacity:
            self._make_room()
        circuit = Circuit(
            *key,
            self._settings,
            announce=self._announce,
            clock=self._clock,
            spread=self._spread,
        )
        self._circuits[key] = circuit
        circuit.hold(self._held(key))
        return circuit

    def _held(self, key: tuple[str, str]) -> str:
        # The states are told apart by identity.
        return {"open": OPEN, "closed": CLOSED}.get(self._holds.get(key, ""), "")

    def _make_room(self) -> None:
        # A closed circuit loses a few counts, an open one its verdict: so closed ones go first.
        idle = (key for key, circuit in self._circuits.items() if circuit.state is CLOSED)
        oldest = next(iter(self._circuits))
        del self._circuits[next(idle, oldest)]

    def _announce(self, transition: Transition) -> None:
        level = logging.WARNING if transition.state is OPEN else logging.INFO
        _log.log(
            level,
            "circuit %s",
            transition.state,
            extra={
                "agent": transition.agent,
                "method": transition.method,
                "previous": transition.previous,
                "calls": transition.calls,
                "failures": transition.failures,
                "open_for_seconds": transition.open_for.total_seconds(),
            },
        )
        if self._on_transition is not None:
            self._on_transition(transition)
