"""A private Redis-protocol server and PostgreSQL for one machine, as child processes in one folder.

Unix sockets only; they end with their launcher however it ends, and lose nothing acknowledged.
"""

from weft.embedded._client import redis_client
from weft.embedded._endpoints import Endpoints, endpoints
from weft.embedded._errors import (
    Error,
    FolderBusy,
    FolderUnusable,
    Incompatible,
    NoAccount,
    NotInstalled,
    NotMainThread,
    ServerLost,
    StartFailed,
)
from weft.embedded._launch import launch
from weft.embedded._programs import postgres_program
from weft.embedded._snapshot import serving_snapshot

__all__ = [
    "Endpoints",
    "Error",
    "FolderBusy",
    "FolderUnusable",
    "Incompatible",
    "NoAccount",
    "NotInstalled",
    "NotMainThread",
    "ServerLost",
    "StartFailed",
    "endpoints",
    "launch",
    "postgres_program",
    "redis_client",
    "serving_snapshot",
]
