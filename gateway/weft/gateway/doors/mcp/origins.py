"""Who may talk to the door by name: the check against DNS rebinding.

A page on the web can make its own name resolve to 127.0.0.1 and so have a browser talk to a server that
listens there. The browser tells the page's name in Host and Origin; names that are not ours are refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

_MOST_KNOWN = 256  # verdicts kept


class Origins:
    """Which Host and Origin headers are accepted.

    Args:
        local: whether the gateway listens on the loopback interface only. Then Host must name this machine,
            and pages of this machine may call; otherwise Host may be any name.
        allowed: origins of web pages that may call, such as "https://app.example.com". Their names are
            accepted in Host as well: a proxy in front may keep them there.
    """

    def __init__(self, *, local: bool, allowed: Iterable[str] = ()) -> None:
        self._local = local
        self._allowed = frozenset(origin.rstrip("/").lower() for origin in allowed)
        self._hosts = frozenset(urlsplit(origin).hostname or "" for origin in self._allowed)
        self._known: dict[tuple[bytes, bytes], bool] = {}

    def accept(self, host: bytes, origin: bytes) -> bool:
        """Whether a request with these headers may go on; empty: the header is missing."""
        key = (host, origin)
        verdict = self._known.get(key)
        if verdict is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            verdict = self._known[key] = self._judge(
                host.decode("latin-1"), origin.decode("latin-1")
            )
        return verdict

    def _judge(self, host: str, origin: str) -> bool:
        name = _hostname(f"//{host}")
        if self._local and not (_is_loopback(name) or name in self._hosts):
            return False
        if not origin or origin.lower() in self._allowed:
            return True
        return self._local and _is_loopback(_hostname(origin))


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
