"""One WebSocket connection (RFC 6455): uvicorn's protocol on the `websockets` library, with the bounds that it lacks.

uvicorn 0.54 reads no further while the application has not taken a message and stops the application while the
caller does not read; it does so without end. Here a caller that leaves what was sent unread is cut after a time,
gets no more answers to its pings meanwhile, and cannot pile up empty fragments. Compression of messages is not
offered: it costs 300 KB a connection, and lets a small frame become a large one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import Frame
from websockets.protocol import OPEN

from weft.gateway.http.settings import HttpSettings
from weft.gateway.http.unread import Unread

# uvicorn logs each connection, with its query, and each fault of a caller, and `websockets` each header and frame at the
# level DEBUG, credentials among them; the application says what is worth saying.
# So it gets a logger that stands by itself and says nothing.
_SILENT = logging.Logger("weft.gateway.websocket", logging.CRITICAL)  # noqa: LOG001 see above


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """A connection within the bounds of `settings`.

    Args:
        lost: told when the connection is gone.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        settings: HttpSettings,
        lost: Callable[[], None],
    ) -> None:
        super().__init__(config, server_state, app_state={})
        self.logger = self.conn.logger = _SILENT
        self.conn.debug = False
        self._settings = settings
        self._lost = lost
        self._unread = Unread(settings.write_time)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops every timer."""
        self._unread.end()
        super().connection_lost(exc)
        self._lost()

    def pause_writing(self) -> None:
        """The caller reads too slowly: starts its time."""
        super().pause_writing()
        self._unread.begin(self.transport.abort)

    def resume_writing(self) -> None:
        """The caller has caught up."""
        self._unread.end()
        super().resume_writing()

    def shutdown(self) -> None:
        """The server stops: the call that runs may finish; a handshake is not taken any more."""
        if not self.handshake_initiated:
            super().shutdown()

    def handle_ping(self) -> None:
        """Answers a ping, unless the caller does not read its answers (RFC 6455, 5.5.3 lets us skip some)."""
        answers = b"".join(self.conn.data_to_send())
        if self.writable.is_set() or self.conn.state is not OPEN:
            self.transport.write(answers)

    def handle_cont(self, event: Frame) -> None:
        """A further fragment of a message; empty ones are not kept."""
        if event.data or event.fin:
            super().handle_cont(event)

    def keepalive_timeout(self) -> None:
        """No answer to a ping: the caller is gone, unless the answer waits behind what we have not read."""
        if self.read_paused and self.ping_timeout is not None:
            self.pong_timer = self.loop.call_later(self.ping_timeout, self.keepalive_timeout)
        else:
            super().keepalive_timeout()
