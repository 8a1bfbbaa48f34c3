"""Lists in pages, as bytes made once for all callers who see the same."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import orjson

from weft.gateway.doors.mcp import protocol
from weft.gateway.doors.mcp.protocol import Outcome
from weft.gateway.doors.mcp.visibility import Scopes, Ways, sees

PAGE = 100
_TTL_MS = 60_000  # a change is told to whoever listens; the others look again after this
_MOST_KEPT = 256  # pages kept
_CURSOR = b"after:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Something that is listed."""

    key: str
    """Its place in the order; unique."""
    ways: Ways
    body: Callable[[], bytes]
    """Its JSON."""


class Listing:
    """Entries in order.

    Args:
        member: name of the list in results.
        entries: what is listed.
        page: entries in one page.
    """

    def __init__(self, member: str, entries: Iterable[Entry], *, page: int = PAGE) -> None:
        self._member = member
        self._entries = sorted(entries, key=lambda entry: entry.key)
        self._scopes = frozenset[str]().union(*(w for e in self._entries for w in e.ways))
        self._page = page
        self._pages: dict[tuple[Scopes | None, str], Outcome] = {}

    def page(self, scopes: Scopes | None, cursor: object) -> Outcome:
        """A page of what a caller with these scopes sees.

        Raises:
            ProtocolError: the cursor is none of ours.
        """
        after = _position(cursor)
        kept = (scopes if scopes is None else scopes & self._scopes, after)
        outcome = self._pages.get(kept)
        if outcome is None:
            if len(self._pages) >= _MOST_KEPT:
                self._pages.clear()
            outcome = self._pages[kept] = self._make(kept[0], after)
        return outcome

    def fingerprint(self) -> dict[str, bytes]:
        """What stands in the list, to tell whether it changed."""
        return {entry.key: entry.body() for entry in self._entries}

    def _make(self, scopes: Scopes | None, after: str) -> Outcome:
        left = [e for e in self._entries if e.key > after and sees(scopes, e.ways)]
        shown = left[: self._page]
        body = b'{"' + self._member.encode() + b'":[' + b",".join(e.body() for e in shown) + b"]"
        if len(left) > len(shown):
            body += b',"nextCursor":' + orjson.dumps(_cursor(shown[-1].key))
        return Outcome(body=body + b"}", fresh=freshness(private=scopes is not None))


def freshness(*, private: bool) -> bytes:
    """Caching hints of a result."""
    scope = b"private" if private else b"public"
    return b'"ttlMs":%d,"cacheScope":"%s"' % (_TTL_MS, scope)


def _cursor(key: str) -> str:
    return base64.urlsafe_b64encode(_CURSOR + key.encode()).decode()


def _position(cursor: object) -> str:
    if cursor is None:
        return ""
    try:
        if isinstance(cursor, str):
            text = base64.b64decode(cursor, altchars=b"-_", validate=True)
            if text.startswith(_CURSOR):
                return text.removeprefix(_CURSOR).decode()
    except (binascii.Error, ValueError):
        pass
    raise protocol.invalid("cursor is none that this server gave")
