"""How a remote is reached: where requests may go, what proves who asks, whom to believe, how much to take."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from weft.config import Remote

MOST_BYTES = 4 * 1024 * 1024  # of one answer, and of one event of a stream
CONNECTING = 10.0  # seconds
_PORTS = {"https": 443, "http": 80}


class RefusedError(Exception):
    """A request or an answer that is not to be; the text says why."""


class TooLargeError(RefusedError):
    """The answer is larger than is taken."""


class Access:
    """The way to one remote.

    Args:
        remote: as the operator described it.
        environ: where a credential may be.
    """

    def __init__(self, remote: Remote, environ: Mapping[str, str] | None = None) -> None:
        self.remote = remote
        self._environ = os.environ if environ is None else environ
        url = urlsplit(remote.url)
        self._secure = url.scheme == "https"
        own = (url.hostname or "", url.port or _PORTS[url.scheme])
        self._places = {own, *(_place(each, url.scheme) for each in remote.hosts)}
        self._kept: tuple[tuple[int, int], str] = ((0, 0), "")

    def __repr__(self) -> str:
        return f"Access({self.place})"

    @property
    def place(self) -> str:
        """Where the remote is, with nothing that could be secret."""
        url = urlsplit(self.remote.url)
        return f"{url.scheme}://{url.netloc}{url.path}"

    def admits(self, url: str) -> bool:
        """Whether requests may go there."""
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            return False
        if parts.scheme not in _PORTS or (self._secure and parts.scheme != "https"):
            return False
        return (parts.hostname or "", port or _PORTS[parts.scheme]) in self._places

    def headers(self, url: str) -> dict[str, str]:
        """What a request carries beside its own headers.

        Raises:
            RefusedError: it may not go there, or there is no credential where one should be.
        """
        if not self.admits(url):
            parts = urlsplit(url)
            raise RefusedError(
                f"{parts.scheme}://{parts.netloc} is not {self.place}, and not among the hosts that are allowed"
            )
        found = {"accept-encoding": "identity"}  # what is packed may be large out of all proportion
        if credential := self._credential():
            bearer = self.remote.header.lower() == "authorization" and " " not in credential
            found[self.remote.header.lower()] = f"Bearer {credential}" if bearer else credential
        return found

    def _credential(self) -> str:
        remote = self.remote
        if remote.token_env:
            found = self._environ.get(remote.token_env, "").strip()
            if not found:
                raise RefusedError(f"the variable {remote.token_env} holds no credential")
        elif remote.token_file:
            found = self._from_file(Path(remote.token_file))
        else:
            return ""
        if not found.isprintable() or not found.isascii():
            raise RefusedError("the credential holds what no header can")
        return found

    def _from_file(self, path: Path) -> str:
        """Read again when it changes: credentials are replaced while processes run."""
        try:
            stat = path.stat()
            at = (stat.st_mtime_ns, stat.st_size)
            if self._kept[0] != at:
                self._kept = (at, path.read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError) as failed:
            why = failed.strerror if isinstance(failed, OSError) else "it is no text"
            raise RefusedError(f"the credential in {path} cannot be read: {why}") from None
        if not self._kept[1]:
            raise RefusedError(f"{path} holds no credential")
        return self._kept[1]

    def trust(self) -> ssl.SSLContext:
        """Whose certificates are believed.

        Raises:
            OSError: `ca_file` cannot be read.
        """
        context = httpx.create_ssl_context()
        if self.remote.ca_file:
            context.load_verify_locations(self.remote.ca_file)
        return context


async def bounded(
    chunks: AsyncIterator[bytes], *, most: int = MOST_BYTES, events: bool = False
) -> AsyncIterator[bytes]:
    """Bytes as they come, as long as there are not too many.

    Args:
        chunks: the bytes.
        most: how many there may be.
        events: whether they are events, of which each may be so large.

    Raises:
        TooLargeError: there are more.
    """
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > most:
            raise TooLargeError(f"the answer is larger than {most} bytes")
        if events:
            end = max(chunk.rfind(b"\n\n"), chunk.rfind(b"\r\n\r\n"))
            size = size if end < 0 else len(chunk) - end
        yield chunk


def _place(host: str, scheme: str) -> tuple[str, int]:
    parts = urlsplit(f"//{host}")
    return parts.hostname or "", parts.port or _PORTS[scheme]
