"""Which pages of other origins may call the gateway from a browser (Fetch, 3.2; by list, default none).

A page that is not listed cannot read what the gateway answers; the browser sees to that. It could still send
a POST that a browser takes for simple, so requests that a browser marks as another site's are refused here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from weft import rpc
from weft.gateway import failures
from weft.gateway.http.exchange import Exchange, Headers

_ORIGIN = re.compile(
    r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?|[a-z-]+://[a-z0-9.-]+"
)
_TOKENS = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?: *, *[A-Za-z0-9!#$%&'*+.^_`|~-]+)*")
_ANY = "*"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_MAX_AGE = b"7200"  # seconds; what Chromium takes at most
_VARY: tuple[bytes, bytes] = (b"vary", b"origin")
_VARY_PREFLIGHT: tuple[bytes, bytes] = (
    b"vary",
    b"origin, access-control-request-method, access-control-request-headers",
)
_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"


class OriginNotAllowed(rpc.PermissionDenied):
    """Pages of this origin may not call this gateway; its operator can list it in WEFT_GATEWAY_CORS_ORIGINS."""

    reason = "ORIGIN_NOT_ALLOWED"


class Cors:
    """Answers preflights, and says in every answer who may read it.

    Args:
        origins: "https://app.example.com" each, or "*": any.
        credentials: whether cookies, HTTP authentication and client certificates of the browser may come along;
            API keys in headers need no such leave.

    Raises:
        ValueError: an origin is none, or credentials are given to any origin.
    """

    def __init__(self, origins: Iterable[str] = (), *, credentials: bool = False) -> None:
        listed = {origin.strip().lower().rstrip("/") for origin in origins} - {""}
        for origin in listed - {_ANY}:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is not an origin such as https://app.example.com")
        if credentials and _ANY in listed:
            raise ValueError("credentials may be given to listed origins only, not to any ('*')")
        self._any = _ANY in listed
        self._origins = frozenset(origin.encode() for origin in listed)
        self._credentials = credentials

    async def ends(self, exchange: Exchange) -> bool:
        """Whether the request is done with: a preflight, or a request that another site may not make."""
        origin = site = wanted = b""
        for name, value in exchange.headers:
            if name == b"origin":
                origin = value
            elif name == b"sec-fetch-site":
                site = value
            elif name == b"access-control-request-method":
                wanted = value
        allowed = bool(origin) and (self._any or origin.lower() in self._origins)
        if self._origins:
            exchange.extend = self._granting(origin) if allowed else _varying
        if not origin:
            return False
        preflight = bool(wanted) and exchange.method == "OPTIONS"
        if allowed and preflight:
            exchange.extend = None
            await exchange.begin(204, self._leave(exchange, origin))
            await exchange.write(b"", more=False)
            return True
        foreign = site in (b"cross-site", b"same-site") and exchange.method not in _SAFE
        if not allowed and (preflight or foreign):
            await exchange.fail(OriginNotAllowed(), failures.aip193)
            return True
        return False

    def opens(self, exchange: Exchange) -> bool:
        """Whether whoever sent this handshake may have a WebSocket, which browsers let any page ask for.

        A page of the gateway's own may, and one of a listed origin. What names no origin is no browser.
        """
        origin = exchange.header(b"origin").lower()
        if not origin or self._any or origin in self._origins:
            return True
        return origin.partition(b"://")[2] == exchange.header(b"host").lower() != b""

    def _granted(self, origin: bytes) -> Headers:
        if self._any:
            return [(b"access-control-allow-origin", b"*")]
        granted: Headers = [(b"access-control-allow-origin", origin), _VARY]
        if self._credentials:
            granted.append((b"access-control-allow-credentials", b"true"))
        return granted

    def _leave(self, exchange: Exchange, origin: bytes) -> Headers:
        """A preflight's answer. Any header may come: an origin is listed to be trusted with them."""
        leave = [each for each in self._granted(origin) if each != _VARY]
        leave += [
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-max-age", _MAX_AGE),
            _VARY_PREFLIGHT,
        ]
        asked = exchange.header(b"access-control-request-headers").strip()
        if _TOKENS.fullmatch(asked):
            leave.append((b"access-control-allow-headers", asked))
        return leave

    def _granting(self, origin: bytes) -> Callable[[Headers], None]:
        granted = self._granted(origin)

        def extend(headers: Headers) -> None:
            # What is not named is hidden from the page: trailers, metadata, the trace.
            names = b", ".join(dict.fromkeys(name for name, _ in headers))
            headers += granted
            headers.append((b"access-control-expose-headers", names))

        return extend


def _varying(headers: Headers) -> None:
    headers.append(_VARY)
