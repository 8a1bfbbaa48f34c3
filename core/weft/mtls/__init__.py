"""Mutual TLS between the processes of a mesh: who each is (SPIFFE ids), by certificates that are kept up to date.

async with mtls.followed(mtls.Files(certificate=..., key=..., ca=...)) as credentials: ...
async with mtls.issued(home, who=lambda trust_domain: ...) as credentials: ...
"""

from weft.mtls.authority import LIFE, Authority, Leaf
from weft.mtls.credentials import (
    PROVIDER,
    WATCH,
    Credentials,
    WrongServer,
    check_member,
    check_server,
)
from weft.mtls.files import Files, load
from weft.mtls.folder import files_of, replace, watched
from weft.mtls.ids import SpiffeId, agents_id, client_id, part_at, part_id, part_name
from weft.mtls.opening import Means, followed, issued, member
from weft.mtls.roles import Roles

__all__ = [
    "LIFE",
    "PROVIDER",
    "WATCH",
    "Authority",
    "Credentials",
    "Files",
    "Leaf",
    "Means",
    "Roles",
    "SpiffeId",
    "WrongServer",
    "agents_id",
    "check_member",
    "check_server",
    "client_id",
    "files_of",
    "followed",
    "issued",
    "load",
    "member",
    "part_at",
    "part_id",
    "part_name",
    "replace",
    "watched",
]
