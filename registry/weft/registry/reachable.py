"""Where others reach a server that listens on all interfaces."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 compared, not bound
_PORT = 5432


def reachable(address: str, database_url: str) -> str:
    """The address by which other replicas reach this one: that of the interface that faces the database they share.

    Args:
        address: "host:port" the server listens on.
        database_url: of the database.
    """
    host, _, port = address.rpartition(":")
    if host not in _LOOPBACK:
        return address
    database = urlsplit(database_url).hostname or ""
    if database and not database.startswith("/"):
        try:
            kind, _, _, _, peer = socket.getaddrinfo(database, _PORT, type=socket.SOCK_DGRAM)[0]
            with socket.socket(kind, socket.SOCK_DGRAM) as probe:
                probe.connect(peer)  # sends nothing: only asks the kernel for a route
                facing = probe.getsockname()[0]
        except OSError:
            pass
        else:
            return f"[{facing}]:{port}" if ":" in facing else f"{facing}:{port}"
    return f"{_LOOPBACK[host]}:{port}"
