"""URLs of Redis: one server, several of which one is the primary, sentinels, or a cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import parse_qs, unquote, urlsplit

from weft.broker.redis.errors import StoreUnfit

_PORT = 6379
_SENTINEL_PORT = 26379
_FORMS = (
    "redis://host:port/db, unix:///path?db=0, redis://host:port,host:port (one of them is the primary), "
    "redis-cluster://host:port,host:port, sentinel://host:port,host:port/name"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens: a path of a unix socket, or host and port."""

    host: str
    port: int = 0

    @classmethod
    def parse(cls, text: str, port: int = _PORT) -> Address:
        """Reads `host`, `host:port` or `[v6]:port`."""
        host, colon, digits = text.rpartition(":")
        if not colon or text.endswith("]"):
            host, digits = text, str(port)
        return cls(host.strip("[]"), int(digits))

    def __str__(self) -> str:
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Kind(Enum):
    """What the addresses of a URL are."""

    PRIMARY = "redis"
    CLUSTER = "redis-cluster"
    SENTINEL = "sentinel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who we are to the servers. Never in a log."""

    user: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Url:
    """A URL taken apart. `name`: the primary's name at its sentinels."""

    kind: Kind
    addresses: tuple[Address, ...]
    account: Account
    database: int = 0
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind.value}://{','.join(map(str, self.addresses))}"


def parse(text: str) -> Url:
    """Reads a URL.

    Raises:
        StoreUnfit: it has none of the forms; the message does not repeat it, since it may hold a password.
    """
    try:
        return _parse(text)
    except ValueError as error:
        raise StoreUnfit(f"The Redis URL is not valid. Its forms: {_FORMS}") from error


def _parse(text: str) -> Url:
    parts = urlsplit(text)
    account_text, _, hosts = parts.netloc.rpartition("@")
    user, _, password = account_text.partition(":")
    account = Account(user=unquote(user), password=unquote(password))
    database = parse_qs(parts.query).get("db", [""])[-1]
    if parts.scheme == "unix":
        path = Address(unquote(parts.path))
        return Url(
            kind=Kind.PRIMARY, addresses=(path,), account=account, database=int(database or 0)
        )
    kind = Kind(parts.scheme)
    port = _SENTINEL_PORT if kind is Kind.SENTINEL else _PORT
    addresses = tuple(Address.parse(host, port) for host in hosts.split(",") if host)
    path_parts = [part for part in parts.path.split("/") if part]
    name = path_parts.pop(0) if kind is Kind.SENTINEL and path_parts else ""
    if path_parts:
        database = path_parts.pop(0)
    number = int(database or 0)
    if (
        not addresses
        or path_parts
        or (kind is Kind.SENTINEL) != bool(name)
        or (kind is Kind.CLUSTER and number)
    ):
        raise ValueError("incomplete")
    return Url(kind=kind, addresses=addresses, account=account, database=number, name=name)
