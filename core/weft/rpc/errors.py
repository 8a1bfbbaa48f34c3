"""Errors of an RPC: one tree, a canonical status at each class.

Error:
    |-- Cancelled            |-- InvalidArgument     |-- DeadlineExceeded
    |-- NotFound             |-- AlreadyExists       |-- PermissionDenied
    |-- Unauthenticated      |-- ResourceExhausted   |-- FailedPrecondition
    |-- Aborted              |-- OutOfRange          |-- Unimplemented
    |-- Unavailable          |-- Internal            |-- Unknown
    `-- DataLoss

A room derives its own errors from these and gives each a `reason`; its docstring is the default message.
On the wire an error is a google.rpc.Status: ErrorInfo always (AIP-193), BadRequest and RetryInfo where
they apply.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar, NoReturn

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from weft.rpc.status import BY_NUMBER

DOMAIN = "weft.dev"
DETAILS_KEY = "grpc-status-details-bin"
_MESSAGE_LIMIT = 2_000
_TRAILERS_LIMIT = (
    7_400  # bytes: peers cap trailers at 8 KiB, and there is more in them than the error
)
_TEXT_LIMIT = 200  # characters of a value or a violation, where it must be cut
_PLAIN = frozenset(range(0x20, 0x7F)) - {
    ord("%")
}  # bytes that a message has as they are; others take three


class Error(Exception):
    """The call failed."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN
    reason: str = "UNKNOWN"

    def __init__(
        self,
        message: str | None = None,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        details: Sequence[Message] = (),
    ) -> None:
        self.message = (message or inspect.getdoc(type(self)) or "")[:_MESSAGE_LIMIT]
        self.reason = reason or self.reason
        self.metadata = dict(metadata or {})
        self.details = tuple(details)
        super().__init__(self.message)


class Cancelled(Error):
    """The caller gave up."""

    code = grpc.StatusCode.CANCELLED
    reason = "CANCELLED"


class Unknown(Error):
    """The call failed for a reason nobody named."""

    code = grpc.StatusCode.UNKNOWN


class InvalidArgument(Error):
    """The request is not valid. Each violation names a field by its path, such as `passages[2].score`."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"

    def __init__(
        self,
        message: str | None = None,
        *,
        field: str | None = None,
        violations: Iterable[tuple[str, str]] = (),
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        details: Sequence[Message] = (),
    ) -> None:
        found = list(violations)
        if field is not None:
            found.append((field, message or "is not valid"))
        if message is None and found:
            message = "; ".join(f"{path}: {text}" for path, text in found)
        self.violations: tuple[tuple[str, str], ...] = tuple(found)
        if found:
            bad = error_details_pb2.BadRequest()
            for path, text in found:
                bad.field_violations.add(field=path, description=text)
            details = (*details, bad)
        super().__init__(message, reason=reason, metadata=metadata, details=details)


class DeadlineExceeded(Error):
    """The deadline passed before the call was done."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class NotFound(Error):
    """There is nothing of this name."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "NOT_FOUND"


class AlreadyExists(Error):
    """There is something of this name already."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "ALREADY_EXISTS"


class PermissionDenied(Error):
    """The caller may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class Unauthenticated(Error):
    """The caller did not say who it is."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class FailedPrecondition(Error):
    """The system is not in a state that allows this."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "FAILED_PRECONDITION"


class Aborted(Error):
    """A concurrent change got in the way; begin again."""

    code = grpc.StatusCode.ABORTED
    reason = "ABORTED"


class OutOfRange(Error):
    """The position is past the end."""

    code = grpc.StatusCode.OUT_OF_RANGE
    reason = "OUT_OF_RANGE"


class Unimplemented(Error):
    """There is no such method."""

    code = grpc.StatusCode.UNIMPLEMENTED
    reason = "UNIMPLEMENTED"


class Internal(Error):
    """The server failed; its log says why, by the trace id."""

    code = grpc.StatusCode.INTERNAL
    reason = "INTERNAL"


class DataLoss(Error):
    """Data is lost or damaged."""

    code = grpc.StatusCode.DATA_LOSS
    reason = "DATA_LOSS"


class _Retryable(Error):
    """The call failed and may be tried again."""

    def __init__(
        self,
        message: str | None = None,
        *,
        retry_after: timedelta | None = None,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        details: Sequence[Message] = (),
    ) -> None:
        self.retry_after = retry_after
        if retry_after is not None:
            info = error_details_pb2.RetryInfo()
            info.retry_delay.FromTimedelta(retry_after)
            details = (*details, info)
        super().__init__(message, reason=reason, metadata=metadata, details=details)


class ResourceExhausted(_Retryable):
    """A limit is reached; try again later."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "RESOURCE_EXHAUSTED"


class Unavailable(_Retryable):
    """The service cannot be reached now; try again."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "UNAVAILABLE"


_BY_CODE: Mapping[grpc.StatusCode, type[Error]] = {
    kind.code: kind
    for kind in (
        *(Cancelled, Unknown, InvalidArgument, DeadlineExceeded, NotFound, AlreadyExists),
        *(PermissionDenied, Unauthenticated, FailedPrecondition, Aborted, OutOfRange),
        *(Unimplemented, Internal, DataLoss, ResourceExhausted, Unavailable),
    )
}


def status_proto(error: Error) -> status_pb2.Status:
    """The error as it goes on the wire, ErrorInfo first."""
    status = status_pb2.Status(code=error.code.value[0], message=error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    status.details.add().Pack(info)
    for detail in error.details:
        status.details.add().Pack(detail)
    return status


def error_from_status(status: status_pb2.Status) -> Error:
    """Reads an error back from the wire; details of unknown types are dropped."""
    kind = _BY_CODE.get(BY_NUMBER.get(status.code, grpc.StatusCode.UNKNOWN), Unknown)
    reason: str | None = None
    metadata: dict[str, str] = {}
    details: list[Message] = []
    for packed in status.details:
        for detail_type in (
            error_details_pb2.ErrorInfo,
            error_details_pb2.BadRequest,
            error_details_pb2.RetryInfo,
            error_details_pb2.QuotaFailure,
            error_details_pb2.PreconditionFailure,
            error_details_pb2.Help,
            error_details_pb2.LocalizedMessage,
        ):
            detail = detail_type()
            if not packed.Is(detail_type.DESCRIPTOR):
                continue
            packed.Unpack(detail)
            if isinstance(detail, error_details_pb2.ErrorInfo):
                reason, metadata = detail.reason, dict(detail.metadata)
            else:
                details.append(detail)
    error = kind(status.message, reason=reason, metadata=metadata, details=details)
    for detail in details:
        if isinstance(error, _Retryable) and isinstance(detail, error_details_pb2.RetryInfo):
            error.retry_after = detail.retry_delay.ToTimedelta()
        if isinstance(error, InvalidArgument) and isinstance(detail, error_details_pb2.BadRequest):
            error.violations = tuple((v.field, v.description) for v in detail.field_violations)
    return error


def error_from_call(failed: grpc.RpcError) -> Error:
    """The error behind a failed call of any gRPC stub."""
    assert isinstance(failed, grpc.aio.AioRpcError)
    for key, value in failed.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                status = status_pb2.Status.FromString(value)
            except DecodeError:
                break
            if status.code == failed.code().value[0]:
                return error_from_status(status)
    return _BY_CODE.get(failed.code(), Unknown)(failed.details() or failed.code().name)


def error_from_exception(failed: BaseException) -> Error | None:
    """What a caller is told about an exception that left a handler; None: it is a bug, tell nothing.

    A call this one depended on keeps its status only where the status means the same to the caller.
    """
    if isinstance(failed, Error):
        return failed
    if isinstance(failed, TimeoutError):
        return DeadlineExceeded()
    if isinstance(failed, grpc.aio.AioRpcError):
        inner = error_from_call(failed)
        if isinstance(inner, DeadlineExceeded | Cancelled):
            return DeadlineExceeded("A call this one depends on ran out of time.")
        if isinstance(inner, Unavailable | ResourceExhausted):
            return Unavailable(
                "A service this call depends on is not available; try again.",
                reason="DEPENDENCY_UNAVAILABLE",
            )
    if isinstance(failed, NotImplementedError):
        return Unimplemented()
    return None


async def abort(
    context: grpc.aio.ServicerContext[Any, Any],
    error: Error,
    beside: Sequence[tuple[str, str | bytes]] = (),
) -> NoReturn:
    """Ends a call with an error and its details, and what else is to be said in trailing metadata.

    Raises:
        grpc.aio.AbortError: always; it must leave the handler as it is.
    """
    status = _fitting(error)
    details = (DETAILS_KEY, status.SerializeToString())
    await context.abort(error.code, status.message, (details, *beside))


def _fitting(error: Error) -> status_pb2.Status:
    """The error as trailers can hold it, with as many violations as there is room for.

    Of larger trailers a caller is told that they are too large, and nothing of the error.
    """
    status = status_proto(error)
    if (
        12 * len(status.message) + _in_base64(status) <= _TRAILERS_LIMIT
    ):  # the most a character takes
        return status
    message = _shortened(error.message)
    metadata = {name: value[:_TEXT_LIMIT] for name, value in error.metadata.items()}
    room = _TRAILERS_LIMIT - _encoded(message)
    cut = status_proto(_BY_CODE[error.code](message, reason=error.reason, metadata=metadata))
    for detail in error.details:
        packed = any_pb2.Any()
        packed.Pack(_fewer(detail, room - _in_base64(cut)))
        cut.details.append(packed)
        if _in_base64(cut) > room:
            del cut.details[-1]
    return cut


def _fewer(detail: Message, room: int) -> Message:
    """As much of a detail as there is room for, where it can be cut."""
    if not isinstance(detail, error_details_pb2.BadRequest):
        return detail
    fewer = error_details_pb2.BadRequest()
    for violation in detail.field_violations:
        fewer.field_violations.add(
            field=violation.field[:_TEXT_LIMIT], description=violation.description[:_TEXT_LIMIT]
        )
        if _in_base64(fewer) > room - 100:  # for the name of its type
            del fewer.field_violations[-1]
            break
    found: Message = fewer
    return found


def _shortened(message: str) -> str:
    size = 0
    for position, character in enumerate(message):
        size += _encoded(character)
        if size > _MESSAGE_LIMIT:
            return message[:position]
    return message


def _encoded(message: str) -> int:
    """Bytes of a message as gRPC sends it (percent-encoded)."""
    return sum(1 if byte in _PLAIN else 3 for byte in message.encode())


def _in_base64(message: Message) -> int:
    return -(-message.ByteSize() // 3) * 4
