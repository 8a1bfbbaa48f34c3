"""The gateway: turns calls from outside into calls of agents."""

from weft.gateway.gateway import Gateway

__all__ = ["Gateway"]
