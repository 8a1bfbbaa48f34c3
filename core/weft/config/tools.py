"""Tools of agents: `[tools.NAME]` of the settings file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import parse_qs, urlsplit

ToolKind = Literal["", "calculator", "fetch", "tavily", "searxng", "query"]

_KINDS = tuple(filter(None, get_args(ToolKind)))
_CREDENTIAL = ("key_env", "key_file")
# What a tool of each kind has beside what all have, and what it cannot be without.
_FURTHER: Mapping[str, tuple[str, ...]] = {
    "calculator": (),
    "fetch": ("hosts", "networks", "ports", "plaintext"),
    "tavily": ("url", *_CREDENTIAL, "depth"),
    "searxng": ("url", "language", "categories"),
    "query": ("url", *_CREDENTIAL, "tables", "functions", "rows", "about"),
}
_NEEDED: Mapping[str, tuple[str, ...]] = {"searxng": ("url",), "query": ("url", "tables")}
_OF_ALL = frozenset({"name", "kind", "scopes", "timeout", "per_second", "burst"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSetting:
    """A tool.

    Attributes:
        name: by which agents and models know it.
        kind: what it is; empty: what it is called.
        scopes: what its callers need, all of it; none: "tools.NAME".
        timeout: seconds it may take; 0: as is usual with its kind.
        per_second: how often each identity may use it; 0: as often as it likes.
        burst: uses that may come at once, where there is such a rate.
        url: of the search engine, or of the database without a password.
        key_env: environment variable with the key of the search engine, or the password of the database.
        key_file: file with it.
        depth: of a search by Tavily; advanced costs twice as much.
        language: of the pages that SearXNG finds; empty: as it is set up.
        categories: that SearXNG searches, joined by commas; empty: as it is set up.
        hosts: that alone may be fetched from, such as example.org, or *.example.org for all below it; none: all.
        networks: that are not public, and may be fetched from all the same.
        ports: that may be fetched from.
        plaintext: whether http will do.
        tables: that may be asked, such as shop.orders or reports.*.
        functions: that may be called beside those that calculate.
        rows: of an answer.
        about: what is in the database, for models.
    """

    name: str
    kind: ToolKind = ""
    scopes: tuple[str, ...] = ()
    timeout: float = 0.0
    per_second: float = 0.0
    burst: float = 1.0
    url: str = ""
    key_env: str = ""
    key_file: str = ""
    depth: Literal["basic", "advanced"] = "basic"
    language: str = ""
    categories: str = ""
    hosts: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    ports: tuple[int, ...] = (80, 443)
    plaintext: bool = False
    tables: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    rows: int = 200
    about: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError where something cannot be used."""
        kind = self.what
        if kind not in _FURTHER:
            raise ValueError(f"give its kind = one of {', '.join(_KINDS)}")
        for each in dataclasses.fields(self):
            given = getattr(self, each.name) != each.default
            if given and each.name not in _OF_ALL and each.name not in _FURTHER[kind]:
                raise ValueError(f"{each.name} is no setting of a tool of the kind {kind}")
        if missing := [each for each in _NEEDED.get(kind, ()) if not getattr(self, each)]:
            raise ValueError(f"give {missing[0]} =")
        if self.timeout < 0 or self.per_second < 0 or self.burst < 1 or self.rows < 1:
            raise ValueError("timeout, per_second, burst and rows cannot be less than nothing")
        _check_credential(self)

    @property
    def what(self) -> str:
        """Its kind."""
        return self.kind or self.name


def _check_credential(given: ToolSetting) -> None:
    of_database = given.what == "query"
    schemes = ("postgresql", "postgres") if of_database else ("https", "http")
    url = urlsplit(given.url)
    if given.url and (url.scheme not in schemes or not (url.hostname or of_database)):
        named = " or ".join(f"{each}://" for each in schemes)
        raise ValueError(f"url must begin with {named}, not {url.scheme[:40]!r}")
    if url.password is not None or "password" in parse_qs(url.query):
        raise ValueError("url must hold no password: name a file or a variable that does")
    if given.key_env and given.key_file:
        raise ValueError("key_env and key_file name two credentials; give one")
    if given.what == "tavily" and not (given.key_env or given.key_file):
        raise ValueError("give key_env = or key_file =")
