"""Who a caller is, in what is stored and counted for it."""

from __future__ import annotations

from weft.v1.identity_pb2 import Identity


def subject_of(identity: Identity | None) -> str:
    """Names a caller; "" where nobody is known. The same subject of two tenants is two callers."""
    if identity is None:
        return ""
    # The length keeps a tenant and a subject from being read as others.
    return f"{len(identity.tenant)}:{identity.tenant}/{identity.subject}"
