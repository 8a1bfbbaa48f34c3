"""What stands between a door of the gateway and an agent, the same for every door."""

from weft.gateway.guards.breaker import Breakers
from weft.gateway.guards.circuit import (
    BreakerSettings,
    CircuitOpen,
    CircuitState,
    Permit,
    Transition,
)
from weft.gateway.guards.deadline import caller_deadline
from weft.gateway.guards.limits import HeadersTooLarge, HeadLimits, PayloadTooLarge, read_body

__all__ = [
    "BreakerSettings",
    "Breakers",
    "CircuitOpen",
    "CircuitState",
    "HeadLimits",
    "HeadersTooLarge",
    "PayloadTooLarge",
    "Permit",
    "Transition",
    "caller_deadline",
    "read_body",
]
