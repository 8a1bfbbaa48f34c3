"""What operators see of the guards: metrics, and lines of the audit log."""

from __future__ import annotations

from types import MappingProxyType

from weft import rpc
from weft.gateway.guards import Transition
from weft.gateway.records import AuditLog
from weft.telemetry import Telemetry
from weft.v1.identity_pb2 import Identity

_STATES = MappingProxyType({"closed": 0, "half-open": 1, "open": 2})


class Watched:
    """Told by the guards what they do.

    Args:
        telemetry: where it is counted; None: nowhere.
        audit: where it is written who was kept out; None: nowhere.
    """

    def __init__(self, telemetry: Telemetry | None, audit: AuditLog | None) -> None:
        self._metrics = telemetry.metrics if telemetry is not None else None
        self._audit = audit

    def transition(self, transition: Transition) -> None:
        """A circuit changed its state."""
        if self._metrics is not None:
            method = transition.method.lstrip("/")
            state = transition.state
            self._metrics.breaker_transitions.labels(transition.agent, method, state).inc()
            self._metrics.breaker_state.labels(transition.agent, method).set(_STATES[state])

    def refused(self, refusal: rpc.Error, identity: Identity | None, key: str) -> None:
        """Somebody was not let in."""
        if self._audit is not None:
            self._audit.refused(refusal, identity, key)

    def limited(self, rule: str, method: str, identity: Identity | None) -> None:
        """A limit refused a call."""
        if self._audit is not None:
            self._audit.limited(rule, method, identity)
        if self._metrics is not None:
            self._metrics.limited.labels(rule).inc()

    def unshared(self) -> None:
        """Limits could not be shared."""
        if self._metrics is not None:
            self._metrics.limits_unshared.inc()

    def cached(self, method: str, outcome: str) -> None:
        """A method with a cache was called."""
        if self._metrics is not None:
            self._metrics.cache.labels(method, outcome).inc()

    def retried(self, agent: str, event: str) -> None:
        """A call was made a second time, or was not for lack of budget."""
        if self._metrics is not None:
            self._metrics.retries.labels(agent, event).inc()
