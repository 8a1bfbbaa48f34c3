"""How a stream to a broker ends, and what that means."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from weft import rpc
from weft.rpc import error_from_call
from weft.rpc.server import MAX_MESSAGE_BYTES

# What a stream that broke raises, whoever broke it.
LOST = (grpc.aio.AioRpcError, asyncio.InvalidStateError, EOFError)

# The largest frame that holds more than one message or settlement, in bytes. A broker takes its largest message and
# 1 MiB beyond: such a frame always passes.
MOST_BYTES = 1024 * 1024

# The largest message or settlement that a channel sends at all, in bytes, with room for the rest of its frame.
MOST_SENT = MAX_MESSAGE_BYTES - 1024

SURE = 3

C = grpc.StatusCode
# The client does something wrong: again would be wrong again.
_FINAL = frozenset({C.INVALID_ARGUMENT, C.PERMISSION_DENIED, C.UNAUTHENTICATED, C.UNIMPLEMENTED})


class Broken(EOFError):
    """The stream was cancelled on this side, because a write to it failed."""


async def read(call: Any) -> Any:
    """The next frame.

    Raises:
        grpc.aio.AioRpcError: the stream ended with an error.
        EOFError: it ended.
    """
    try:
        frame = await call.read()
        if frame is not grpc.aio.EOF:
            return frame
        code = await call.code()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise Broken from None  # gRPC's word for a call that was cancelled, not this task
    if code is C.OK:
        raise EOFError
    raise grpc.aio.AioRpcError(
        code, await call.initial_metadata(), await call.trailing_metadata(), await call.details()
    )


def final(failed: BaseException) -> rpc.Error | None:
    """What the broker has against this client, if that will not change; None: another try may go better."""
    if isinstance(failed, grpc.aio.AioRpcError) and failed.code() in _FINAL:
        return error_from_call(failed)
    return None


def too_large(failed: BaseException) -> int:
    """How likely a frame was larger than the broker takes: it was if these add up to `SURE`.

    The broker's own word may be lost when it cuts a frame that is still being written; then gRPC only says that the
    write failed, which may be anything.
    """
    if isinstance(failed, grpc.aio.AioRpcError):
        return {C.RESOURCE_EXHAUSTED: SURE, C.INTERNAL: 1}.get(failed.code(), 0)
    return 0


def cause(failed: BaseException) -> str:
    """In words, for logs."""
    if isinstance(failed, grpc.aio.AioRpcError):
        return f"{failed.code().name}: {failed.details()}"
    return type(failed).__name__
