"""The options of edges: those of the gateway, as far as an Envoy can keep to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Literal

_ENCRYPTED = "https://"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Whose tokens are accepted.

    Attributes:
        issuer: of the tokens.
        audiences: whom tokens may be for; empty: anybody.
        keys: URL of the issuer's keys, or the keys themselves, a JWKS document.
        leeway: by how much the issuer's clock may differ.
    """

    issuer: str
    audiences: Sequence[str]
    keys: str
    leeway: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How many requests an edge lets pass.

    Attributes:
        per_second: requests a second.
        burst: requests that may come at once.
    """

    per_second: float
    burst: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """When an instance gets no calls for a time.

    Attributes:
        ratio: share of failed calls, 0 to 1.
        volume: fewest calls to judge by.
        window: how often it is judged.
        open_for: how long it gets none.
    """

    ratio: float
    volume: int
    window: timedelta
    open_for: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeOptions:
    """How edges let callers in.

    Attributes:
        access: what callers need: nothing ("open"), a token ("tokens"), what only a gateway can check ("gateway");
            "auto": nothing where the edge listens on the loopback interface, else what only a gateway can check.
        gateway: "host:port" of gateways for what an edge cannot do, by HTTP; empty: it is refused. "https://host:port":
            where they have certificates of the mesh, and edges show theirs.
        gateway_grpc: the same by gRPC.
        tokens: whose tokens; None: nobody's.
        guarded: methods that only a gateway may let callers to: "package.Service/Method", with * for any characters.
        rate: how many requests each edge lets pass; None: all.
        origins: whose pages may call from a browser; "*": any.
        credentials: whether cookies may come along.
        max_body: largest body of a REST request, in bytes.
        max_timeout: longest deadline a caller may ask.
        breaker: when an instance gets no calls for a time.
    """

    access: Literal["open", "tokens", "gateway", "auto"] = "auto"
    gateway: str = ""
    gateway_grpc: str = ""
    tokens: Tokens | None = None
    guarded: Sequence[str] = ()
    rate: Rate | None = None
    origins: Sequence[str] = ()
    credentials: bool = False
    max_body: int = 4 * 1024 * 1024
    max_timeout: timedelta = timedelta(minutes=10)
    breaker: Breaker = field(
        default_factory=lambda: Breaker(
            ratio=0.5, volume=20, window=timedelta(seconds=10), open_for=timedelta(seconds=5)
        )
    )

    def __post_init__(self) -> None:
        """Sees that tokens can be checked where they are asked for.

        Raises:
            ValueError: they cannot, or one of the gateway's addresses is missing, none, or unlike the other.
        """
        if self.access == "tokens" and self.tokens is None:
            raise ValueError("tokens are asked for, and no issuer of any is named")
        if bool(self.gateway) != bool(self.gateway_grpc):
            raise ValueError("give both addresses of the gateway, or none")
        if _encrypted(self.gateway) != _encrypted(self.gateway_grpc):
            raise ValueError("give both addresses of the gateway with https://, or none")
        for address in filter(None, (self.gateway, self.gateway_grpc)):
            place(address)

    @property
    def encrypts(self) -> bool:
        """Whether connections to gateways are encrypted."""
        return _encrypted(self.gateway)

    def guards(self, method: str) -> bool:
        """Whether only a gateway may let callers to a method, "package.Service/Method"."""
        return any(fnmatchcase(method, pattern) for pattern in self.guarded)


def place(gateway: str) -> tuple[str, int]:
    """Host and port of one of the gateway's addresses.

    Raises:
        ValueError: it has none.
    """
    host, _, port = gateway.removeprefix(_ENCRYPTED).rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"{gateway!r} is not HOST:PORT or https://HOST:PORT")
    return host.strip("[]"), int(port)


def _encrypted(address: str) -> bool:
    return address.startswith(_ENCRYPTED)
