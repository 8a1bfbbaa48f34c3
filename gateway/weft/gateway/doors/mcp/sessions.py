"""Sessions of the revisions that begin with `initialize`."""

from __future__ import annotations

import asyncio
import secrets
import time

from weft.gateway.doors.mcp.changes import Listener

_MOST = 10_000  # sessions; one more ends the one that was used longest ago
_IDLE = 3600.0  # seconds after which a session that nobody uses may end


class Session:
    """What a client agreed with the door.

    Attributes:
        id: its name in the header Mcp-Session-Id.
        version: the revision both speak.
        subject: who began it; nobody else may use it.
        log_level: the least severe log message the client wants; empty: none.
        watched: URIs of resources whose changes it wants to hear of.
        running: tasks that serve its requests, by JSON-RPC id.
        cancelled: those of them that it called back.
        stream: its open stream, if there is one.
    """

    __slots__ = (
        "cancelled",
        "id",
        "log_level",
        "running",
        "stream",
        "subject",
        "used",
        "version",
        "watched",
    )

    def __init__(self, version: str, subject: str) -> None:
        self.id = secrets.token_urlsafe(24)
        self.version = version
        self.subject = subject
        self.log_level = ""
        self.watched: set[str] = set()
        self.running: dict[bytes, asyncio.Task[object]] = {}
        self.cancelled: set[bytes] = set()
        self.stream: Listener | None = None
        self.used = time.monotonic()

    @property
    def idle(self) -> bool:
        """Whether nothing goes on in it."""
        return not self.running and self.stream is None

    def cancel(self, request_id: bytes) -> None:
        """Calls a running request back; one that is not there any more is none to speak of."""
        task = self.running.get(request_id)
        if task is not None:
            self.cancelled.add(request_id)
            task.cancel()


class Sessions:
    """All sessions of this process, the one used last at the end."""

    def __init__(self, *, most: int = _MOST) -> None:
        self._sessions: dict[str, Session] = {}
        self._most = most

    def begin(self, version: str, subject: str) -> Session:
        """A new session."""
        now = time.monotonic()
        for old in list(self._sessions.values()):
            if len(self._sessions) < self._most and now - old.used < _IDLE:
                break
            if old.idle or len(self._sessions) >= self._most:
                self.end(old)
        session = Session(version, subject)
        self._sessions[session.id] = session
        return session

    def find(self, session_id: str, subject: str) -> Session | None:
        """A session by its name; None: there is none, or it is somebody else's."""
        session = self._sessions.get(session_id)
        if session is None or session.subject != subject:
            return None
        del self._sessions[session_id]
        self._sessions[session_id] = session
        session.used = time.monotonic()
        return session

    def end(self, session: Session) -> None:
        """Ends a session and what runs in it."""
        self._sessions.pop(session.id, None)
        for request_id in list(session.running):
            session.cancel(request_id)
        if session.stream is not None:
            session.stream.close()
