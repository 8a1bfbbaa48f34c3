"""Reads what is behind a URL that somebody else names: single point of control for where that leads.

Each hop of a redirect is checked like the first. The connection goes to the address that was checked, so a name that is
given another address in between leads nowhere else. No proxy of the environment, no cookie, no credential goes along.
"""

from __future__ import annotations

import logging
import ssl
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import httpx

from weft import rpc
from weft.webhooks import AddressRefused, NameUnknown, TargetRefused, Targets

log = logging.getLogger("weft.agents.tools")

_NOWHERE = "It leads to no public address, or its name cannot be looked up."
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_INFLATING = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_CHUNK = 64 * 1024
_TEXTS = ("text/", "application/json", "application/xml", "application/xhtml+xml")
_TEXT_ENDINGS = ("+json", "+xml", "/yaml", "/x-yaml", "/javascript", "/x-ndjson", "/rss", "/toml")


class FetchRefused(rpc.InvalidArgument):
    """This may not, or cannot, be read."""

    reason = "FETCH_REFUSED"


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchSettings:
    """What may be read, and how much of it."""

    most_bytes: int = 2 * 1024 * 1024
    """Of one answer; what is more is left out."""
    most_characters: int = 20_000
    """Of text in one result."""
    hops: int = 5
    """Redirects that are followed."""
    time: timedelta = timedelta(seconds=20)
    """For all of it."""
    plaintext: bool = False
    """Whether http will do, which anybody on the way can read and change."""
    networks: Sequence[str] = ()
    """Networks that are not public, such as "10.1.0.0/16", and may be read all the same."""
    hosts: Sequence[str] = ()
    """That alone may be read, such as "example.org", or "*.example.org" for all below it; none: all."""
    ports: Sequence[int] | None = (80, 443)
    """That may be reached; None: any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was read.

    Attributes:
        url: where it was in the end.
        status: of the answer.
        media_type: lower case, with no parameters; empty: it does not say.
        charset: that the answer names; empty: none.
        body: its first bytes.
        truncated: whether there were more.
    """

    url: str
    status: int
    media_type: str
    charset: str
    body: bytes
    truncated: bool


class Reader:
    """Reads.

    Args:
        settings: what may be read.
        tls: whose certificates are believed; None: those that the system's client libraries believe.

    Raises:
        ValueError: a network is none.
    """

    def __init__(self, settings: FetchSettings, tls: ssl.SSLContext | None = None) -> None:
        self._settings = settings
        self._targets = Targets(
            settings.networks,
            plaintext=settings.plaintext,
            ports=settings.ports,
            hosts=settings.hosts or None,
        )
        self._tls = tls or httpx.create_ssl_context(trust_env=False)

    async def read(self, url: str) -> Answer:
        """What is behind a URL.

        Raises:
            FetchRefused: it leads where it may not, or to what is no text.
            rpc.Unavailable: it cannot be reached.
        """
        # No connection is kept: it would serve every name of its address, whatever certificate it was opened with.
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncHTTPTransport(
            verify=self._tls, trust_env=False, limits=limits
        ) as transport:
            for _ in range(self._settings.hops + 1):
                answer, further = await self._hop(transport, url)
                if answer is not None:
                    return answer
                url = further
        raise FetchRefused(f"It redirects more than {self._settings.hops} times.")

    async def _hop(
        self, transport: httpx.AsyncHTTPTransport, url: str
    ) -> tuple[Answer | None, str]:
        """An answer; None: it is at another URL."""
        try:
            target = await self._targets.resolve(url)
        except (AddressRefused, NameUnknown) as refused:
            # In equal words: nobody is to find out by asking which names there are inside.
            log.info("a page is not read: %s", refused.message, extra={"host": httpx.URL(url).host})
            raise FetchRefused(_NOWHERE, field="url") from None
        except TargetRefused as refused:
            raise FetchRefused(refused.message, field="url") from None
        try:
            response = await transport.handle_async_request(
                self._request(target.url, str(target.address))
            )
            try:
                location = response.headers.get("location")
                if response.status_code in _REDIRECTS and location is not None:
                    return None, _joined(target.url, location)
                return await self._answer(target.url, response), ""
            finally:
                await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, zlib.error, UnicodeError) as failed:
            kind = type(failed).__name__
            raise rpc.Unavailable(f"It cannot be read ({kind}).", reason="FETCH_FAILED") from None

    def _request(self, url: httpx.URL, address: str) -> httpx.Request:
        seconds = self._settings.time.total_seconds()
        return httpx.Request(
            "GET",
            url.copy_with(host=address, fragment=None),
            headers={
                "host": url.netloc.decode("ascii"),
                "user-agent": "weft-fetch/1",
                "accept": "text/html, text/*;q=0.9, application/json;q=0.9, application/xml;q=0.8",
                "accept-encoding": "identity",
                "connection": "close",
            },
            extensions={
                "timeout": dict.fromkeys(("connect", "read", "write", "pool"), seconds),
                # The certificate must be that of the name, not of the address.
                "sni_hostname": url.raw_host.decode("ascii"),
            },
        )

    async def _answer(self, url: httpx.URL, response: httpx.Response) -> Answer:
        media_type, charset = _kind(response.headers.get("content-type", ""))
        if (
            media_type
            and not media_type.startswith(_TEXTS)
            and not media_type.endswith(_TEXT_ENDINGS)
        ):
            raise FetchRefused(f"It is {media_type[:100]}, and only text can be read.")
        body, truncated = await self._body(response)
        if not media_type and b"\0" in body:
            raise FetchRefused("It does not say what it is, and is no text.")
        return Answer(
            url=str(url.copy_with(fragment=None)),
            status=response.status_code,
            media_type=media_type,
            charset=charset,
            body=body,
            truncated=truncated,
        )

    async def _body(self, response: httpx.Response) -> tuple[bytes, bool]:
        most = self._settings.most_bytes
        body = bytearray()
        async for part in _plain(response):
            body += part
            if len(body) > most:
                return bytes(body[:most]), True
        return bytes(body), False


async def _plain(response: httpx.Response) -> AsyncIterator[bytes]:
    """The bytes of an answer, unpacked a little at a time: what is packed may be large out of all proportion."""
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding in {"identity", ""}:
        async for part in response.aiter_raw(_CHUNK):
            yield part
        return
    if coding not in _INFLATING:
        raise FetchRefused(f"It is packed as {coding[:40]!r}, which cannot be read.")
    unpacking = zlib.decompressobj(_INFLATING[coding])
    async for part in response.aiter_raw(_CHUNK):
        left = part
        while left and not unpacking.eof:
            yield unpacking.decompress(left, _CHUNK)
            left = unpacking.unconsumed_tail


def _joined(url: httpx.URL, location: str) -> str:
    try:
        return str(url.join(location))
    except (httpx.InvalidURL, ValueError):
        raise FetchRefused("It redirects to what is no URL.") from None


def _kind(content_type: str) -> tuple[str, str]:
    media_type, *parameters = content_type.lower().split(";")
    charset = ""
    for each in parameters:
        name, _, value = each.strip().partition("=")
        if name.strip() == "charset":
            charset = value.strip(" \"'")
    return media_type.strip(), charset
