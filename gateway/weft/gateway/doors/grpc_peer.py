"""Who is at the other end of a gRPC connection."""

from __future__ import annotations

import functools
import ssl
from typing import Any

import grpc


def certificate_of(context: grpc.aio.ServicerContext[Any, Any]) -> bytes | None:
    """The client certificate that the connection of a call brought, verified, as DER; None: it brought none."""
    found = context.auth_context().get("x509_pem_cert")
    return _der(next(iter(found))) if found else None


@functools.lru_cache(maxsize=1024)
def _der(pem: bytes) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))
