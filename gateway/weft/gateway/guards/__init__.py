"""What stands between a door of the gateway and an agent, the same for every door."""

from weft.gateway.guards.breaker import Breakers
from weft.gateway.guards.circuit import (
    BreakerSettings,
    CircuitOpen,
    CircuitState,
    Permit,
    Transition,
)

__all__ = [
    "BreakerSettings",
    "Breakers",
    "CircuitOpen",
    "CircuitState",
    "Permit",
    "Transition",
]
