"""Skills of an A2A agent as skills of an agent of the mesh."""

from weft.agents.remote.a2a.agent import A2aAgent

__all__ = ["A2aAgent"]
