"""What a drill does to a call."""

from __future__ import annotations

import asyncio

import grpc

from weft.gateway.dataplane.errors import CallFailed
from weft.gateway.dataplane.traffic import Fault
from weft.rpc.call import Metadata

# A second attempt would undo the drill; gRPC and Envoy make none either.
_NEVER_AGAIN: Metadata = (("grpc-retry-pushback-ms", "-1"),)


async def strike(fault: Fault, metadata: Metadata, seconds: float | None) -> None:
    """Holds a call up, fails it, or lets it be.

    Args:
        fault: the drill.
        metadata: of the call.
        seconds: it may take; None: as long as it likes.

    Raises:
        CallFailed: as the drill says.
    """
    if not fault.hits(metadata):
        return
    if fault.delays():
        if seconds is not None and seconds <= fault.seconds:
            await asyncio.sleep(seconds)
            raise CallFailed(grpc.StatusCode.DEADLINE_EXCEEDED, "Held up by a drill.")
        await asyncio.sleep(fault.seconds)
    if fault.aborts():
        raise CallFailed(fault.code, "Failed by a drill.", trailing=_NEVER_AGAIN)
