"""The WebSocket door: a call of any of the four kinds is one WebSocket at /ws/package.Service/Method."""

from weft.gateway.doors.websocket.door import NAME, PREFIX, refuse_plain, serve
from weft.gateway.doors.websocket.socket import Socket

__all__ = ["NAME", "PREFIX", "Socket", "refuse_plain", "serve"]
