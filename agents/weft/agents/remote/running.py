"""Remotes as the settings describe them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from weft.agents.host import Host
from weft.agents.remote.access import Access
from weft.agents.remote.contract import Terms
from weft.agents.remote.keeper import Keeper
from weft.config import Remote


class NotInstalledError(ImportError):
    """A library that the protocol needs is not there."""


def keeper_of(remote: Remote, hosts: Callable[[], Host]) -> Keeper[Any]:
    """What keeps a remote in the mesh.

    Args:
        remote: as the operator described it.
        hosts: makes a host that is not started.

    Raises:
        NotInstalledError: the library that speaks the protocol is not installed.
        OSError: certificates cannot be read.
    """
    access = Access(remote)
    access.trust()
    terms = Terms(
        agent=remote.name, scopes=remote.scopes, timeout=timedelta(seconds=remote.timeout)
    )
    try:
        if remote.protocol == "mcp":
            from weft.agents.remote.mcp import McpAgent

            return Keeper(McpAgent(access, terms), hosts, refresh=remote.refresh)
        from weft.agents.remote.a2a import A2aAgent

        return Keeper(A2aAgent(access, terms), hosts, refresh=remote.refresh)
    except ModuleNotFoundError as missing:
        raise NotInstalledError(
            f"{missing.name} is not installed: pip install 'weft[remote]'"
        ) from missing
