"""Agents and servers outside of the mesh that are shown as agents of it: `[remotes.NAME]` of the settings file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from weft.config.credentials import check_url
from weft.config.tables import made, said, tables_of

Protocol = Literal["mcp", "a2a"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A remote.

    Attributes:
        name: of the agent that it becomes.
        protocol: what it speaks.
        url: of the MCP endpoint, or where the A2A agent's card is: the card itself, or what is before
            /.well-known/agent-card.json.
        token_file: file that holds the credential; empty: none.
        token_env: environment variable that holds it; empty: none.
        header: that carries it; Authorization has "Bearer" before it.
        scopes: what callers of it need.
        timeout: seconds a call may take whose caller names no deadline.
        refresh: seconds between looks at what it offers.
        hosts: "host" or "host:port" it may send the agent to besides its own.
        ca_file: certificates to believe besides those of the system; empty: none.
        plaintext: whether http is good enough for a host that is not this one.
    """

    name: str
    protocol: Protocol
    url: str
    token_file: str = ""
    token_env: str = ""
    header: str = "Authorization"
    scopes: tuple[str, ...] = ()
    timeout: float = 60.0
    refresh: float = 60.0
    hosts: tuple[str, ...] = ()
    ca_file: str = ""
    plaintext: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError where something cannot be used."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"{self.name[:80]!r} is no name for an agent: 1 to 63 of a-z, 0-9 and hyphen, a letter first"
            )
        url = check_url(self.url)
        if url.scheme == "http" and url.hostname not in _LOOPBACK and not self.plaintext:
            raise ValueError(
                "url is http, which anybody on the way can read; allow it with plaintext"
            )
        if self.token_file and self.token_env:
            raise ValueError("token_file and token_env name two credentials; give one")
        if not _HEADER.fullmatch(self.header):
            raise ValueError(f"header is no name of a header: {self.header[:80]!r}")
        if not (self.timeout > 0 and self.refresh > 0):
            raise ValueError("timeout and refresh must be more than 0 s")


def read_remotes(given: object) -> dict[str, Remote]:
    """The tables `[remotes.NAME]`, or the same in JSON.

    Raises:
        ValueError: something cannot be used.
    """
    return {name: _read(name, table) for name, table in tables_of(given, "remotes").items()}


def as_json(remotes: Mapping[str, Remote]) -> str:
    """What `read_remotes` reads."""
    tables = {name: said(remote) for name, remote in remotes.items()}
    return json.dumps(
        {name: {table.pop("protocol"): table.pop("url"), **table} for name, table in tables.items()}
    )


def _read(name: str, table: Mapping[str, Any]) -> Remote:
    spoken = [each for each in PROTOCOLS if each in table]
    if len(spoken) != 1:
        raise ValueError(f"{name}: give its URL as mcp = or as a2a =")
    if wrong := sorted({"protocol", "url"} & table.keys()):
        raise ValueError(f"{name}: there is no setting {wrong[0]!r}")
    further = {key: value for key, value in table.items() if key != spoken[0]}
    return made(name, {"protocol": spoken[0], "url": table[spoken[0]], **further}, Remote)
