"""Leaves addresses alone for a time whose calls fail (gRFC A50, by failure percentage).

Nothing is done while no call fails: the first failure begins a second, at whose end the addresses are judged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from weft.gateway.dataplane.endpoint import Endpoint
from weft.gateway.dataplane.traffic import Outliers

_INTERVAL = 1.0  # seconds
_VOLUME = 5  # calls in that time, of an address that is judged
_HOSTS = 2  # such addresses, for a judgement
_LONGEST = 300.0  # seconds an address is left alone


class Judge:
    """Of the addresses of one agent.

    Args:
        told: called when one is left alone, or no longer.
    """

    def __init__(self, told: Callable[[], None]) -> None:
        self._told = told
        self._rules: Outliers | None = None
        self._endpoints: Sequence[Endpoint] = ()
        self._before: dict[Endpoint, tuple[int, int]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def update(self, endpoints: Sequence[Endpoint], rules: Outliers | None) -> None:
        """Takes the addresses there are, and the rules; None: nobody is left alone."""
        self._endpoints, self._rules = endpoints, rules
        for endpoint in endpoints:
            endpoint.tally.on_failure = None if rules is None else self._failed
            if rules is None:
                endpoint.spare()
        if not endpoints or rules is None:
            self._forget()

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _failed(self) -> None:
        if self._timer is None:
            self._begin()

    def _begin(self) -> None:
        self._before = {each: (each.tally.begun, each.tally.failed) for each in self._endpoints}
        self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self._judge)

    def _judge(self) -> None:
        self._timer = None
        assert self._rules is not None
        judged: list[tuple[float, Endpoint]] = []
        any_failed = False
        for endpoint in self._endpoints:
            begun, failed = self._before.get(endpoint, (0, 0))
            calls, failures = endpoint.tally.begun - begun, endpoint.tally.failed - failed
            any_failed = any_failed or failures > 0
            if max(calls, failures) >= _VOLUME:
                judged.append((failures / max(calls, failures), endpoint))
        if len(judged) >= _HOSTS:
            for share, endpoint in judged:
                if share > self._rules.failures and not endpoint.ejected:
                    self._eject(endpoint, self._rules)
        if any_failed:
            self._begin()

    def _eject(self, endpoint: Endpoint, rules: Outliers) -> None:
        ejected = sum(each.ejected for each in self._endpoints)
        if ejected + 1 > max(1, int(len(self._endpoints) * rules.ejected)):
            return
        endpoint.eject(rules.ejection, _LONGEST)
        self._told()
