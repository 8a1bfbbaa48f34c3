"""What the HTTP server allows a connection."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from datetime import timedelta

from weft.gateway.guards import HeadLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """Limits and times of HTTP connections."""

    host: str = "127.0.0.1"
    port: int = 7080
    """0: any free port."""
    head: HeadLimits = field(default_factory=HeadLimits)
    """Size of a request's head."""
    head_time: timedelta = timedelta(seconds=10)
    """From the connection, or the first byte of a later request, to the end of the head."""
    body_time: timedelta = timedelta(seconds=60)
    """From the end of the head to the end of the body."""
    keep_alive: timedelta = timedelta(seconds=75)
    """How long a connection may wait for its next request; whole seconds, rounded up."""
    write_time: timedelta = timedelta(seconds=60)
    """How long a caller may leave an answer unread that waits to be sent."""
    linger: timedelta = timedelta(seconds=2)
    """How long the rest of a refused request is read and dropped, so that its sender gets the answer."""
    pipeline: int = 32
    """Requests that may wait on one connection for the answer to an earlier one."""
    connections: int = 16_384
    """Open connections; one more is told 503. Fewer where the process may not open so many files."""
    sockets: str = "/ws/"
    """Beneath this path a request may become a WebSocket."""
    max_message: int = 4 * 1024 * 1024
    """Largest message of a WebSocket, bytes."""
    ping: timedelta = timedelta(seconds=20)
    """How long a WebSocket waits between two pings, and for the answer to one."""
    tls: ssl.SSLContext | None = None
    """Of encrypted connections; None: they are not."""
    hsts: timedelta = timedelta(0)
    """For how long browsers shall come by https alone (RFC 6797); 0: nothing is said of that."""
    backlog: int = 1024
    """Connections the kernel holds until they are accepted."""
