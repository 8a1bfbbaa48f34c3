"""A2A (Agent2Agent) 1.0.1: agents of other vendors call skills as tasks, by JSON-RPC, HTTP+JSON and gRPC."""

from weft.gateway.doors.a2a.door import PATH, A2aDoor, A2aSettings, fail
from weft.gateway.doors.a2a.grpc import A2aGrpc
from weft.gateway.doors.a2a.protocol import NAME

__all__ = ["NAME", "PATH", "A2aDoor", "A2aGrpc", "A2aSettings", "fail"]
