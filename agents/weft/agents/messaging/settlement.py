"""What becomes of a message by what its handler returned or raised."""

from __future__ import annotations

from datetime import timedelta

import grpc

from weft import rpc
from weft.rpc import status_proto
from weft.v1 import broker_pb2, message_pb2

C = grpc.StatusCode
# Said again for the same message however often it is tried.
_PERMANENT = frozenset(
    {
        *(C.INVALID_ARGUMENT, C.NOT_FOUND, C.ALREADY_EXISTS, C.PERMISSION_DENIED),
        *(C.UNAUTHENTICATED, C.FAILED_PRECONDITION, C.OUT_OF_RANGE, C.UNIMPLEMENTED),
        C.DATA_LOSS,
    }
)
# What a broker takes; beyond it the stream would end, and with it the consumer.
_MOST_ERROR = 2_000
_MOST_REASON = 64
_MOST_DELAY = timedelta(days=7)

Settlement = broker_pb2.Completion | broker_pb2.Nack | broker_pb2.Reject | str


class Retry(Exception):
    """Raised by a handler: try the message again, after `delay` (at most 7 days) or as its queue's policy says.

    `unused`: it was not begun, so that this was no attempt.
    """

    def __init__(
        self, error: str = "", *, delay: timedelta | None = None, unused: bool = False
    ) -> None:
        super().__init__(error)
        self.delay = delay
        self.unused = unused


class Reject(Exception):
    """Raised by a handler: the message can never be handled. `reason`: a word such as "UNKNOWN_CUSTOMER"."""

    def __init__(self, reason: str, error: str = "") -> None:
        super().__init__(error)
        self.reason = reason


def of_result(lease_id: str, result: message_pb2.Reply | bytes | None) -> Settlement:
    """The settlement of a message whose handler returned."""
    if result is None:
        return lease_id
    reply = message_pb2.Reply(payload=result) if isinstance(result, bytes) else result
    return broker_pb2.Completion(lease_id=lease_id, reply=reply)


def of_exception(lease_id: str, failed: BaseException) -> Settlement:
    """The settlement of a message whose handler raised."""
    if isinstance(failed, Retry):
        return _nack(lease_id, str(failed), failed.delay, unused=failed.unused)
    if isinstance(failed, Reject):
        return broker_pb2.Reject(
            lease_id=lease_id,
            reason=failed.reason[:_MOST_REASON] or "REJECTED",
            error=str(failed)[:_MOST_ERROR],
        )
    error = rpc.error_from_call(failed) if isinstance(failed, grpc.aio.AioRpcError) else failed
    if not isinstance(error, rpc.Error):
        return _nack(lease_id, type(failed).__name__, None)
    text = f"{error.reason}: {error.message}"
    if error.code in _PERMANENT:
        return broker_pb2.Reject(
            lease_id=lease_id,
            reason=error.reason[:_MOST_REASON] or "REJECTED",
            error=text[:_MOST_ERROR],
            reply=message_pb2.Reply(error=status_proto(error)),
        )
    return _nack(lease_id, text, getattr(error, "retry_after", None))


def _nack(
    lease_id: str, error: str, delay: timedelta | None, *, unused: bool = False
) -> broker_pb2.Nack:
    nack = broker_pb2.Nack(lease_id=lease_id, error=error[:_MOST_ERROR], unused=unused)
    if delay is not None:
        nack.delay.FromTimedelta(min(max(delay, timedelta(0)), _MOST_DELAY))
    return nack
