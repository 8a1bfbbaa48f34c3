"""What an Envoy at the edge of the mesh is told: one listener, and routes made of the agents' contracts (docs/edge.md)."""

from weft.registry.xds.edge.front import Front
from weft.registry.xds.edge.node import EdgeNode
from weft.registry.xds.edge.options import Breaker, EdgeOptions, Rate, Tokens

__all__ = ["Breaker", "EdgeNode", "EdgeOptions", "Front", "Rate", "Tokens"]
