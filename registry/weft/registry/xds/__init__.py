"""The xDS control plane: at `xds:///agent` gRPC clients find an agent's instances, Envoys follow all agents."""

from weft.registry.xds.edge import EdgeOptions
from weft.registry.xds.server import ControlPlane
from weft.registry.xds.sink import AgentUnknown, Sink

__all__ = ["AgentUnknown", "ControlPlane", "EdgeOptions", "Sink"]
