"""The WebSocket door: a call of any of the four kinds is one WebSocket at /ws/package.Service/Method.

At /ws/events one WebSocket carries many streams.
"""

from weft.gateway.doors.websocket.door import NAME, PREFIX, refuse_plain, serve
from weft.gateway.doors.websocket.events import PATH as EVENTS
from weft.gateway.doors.websocket.events import Events
from weft.gateway.doors.websocket.socket import Socket

__all__ = ["EVENTS", "NAME", "PREFIX", "Events", "Socket", "refuse_plain", "serve"]
