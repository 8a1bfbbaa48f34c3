"""How calls of an agent find an instance, where operators say so: what they may say, and which instances it is about."""

from weft.registry.traffic.policy import Policy

__all__ = ["Policy"]
