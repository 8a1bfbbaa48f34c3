"""The xDS control plane for gRPC clients: `xds:///agent` finds, follows and balances over an agent's instances."""

from weft.registry.xds.server import ControlPlane
from weft.registry.xds.sink import AgentUnknown, Sink

__all__ = ["AgentUnknown", "ControlPlane", "Sink"]
