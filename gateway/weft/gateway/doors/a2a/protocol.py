"""The words of A2A 1.0.1: states, errors, headers, and what a Task and its parts look like.

https://a2a-protocol.org/v1.0.1/specification. Answers are put together from bytes: what an agent said is JSON already,
and is never parsed again.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, ClassVar

import grpc
import orjson

from weft import rpc

Json = dict[str, Any]

C = grpc.StatusCode

NAME = "a2a"
VERSION = "1.0"
MEDIA_TYPE = b"application/a2a+json"
EXTENSION = "https://weft.dev/extensions/typed-skills/v1"
"""Skills with schemas, named by who calls them."""

SUBMITTED = "TASK_STATE_SUBMITTED"
WORKING = "TASK_STATE_WORKING"
COMPLETED = "TASK_STATE_COMPLETED"
FAILED = "TASK_STATE_FAILED"
CANCELED = "TASK_STATE_CANCELED"
REJECTED = "TASK_STATE_REJECTED"
INPUT_REQUIRED = "TASK_STATE_INPUT_REQUIRED"
AUTH_REQUIRED = "TASK_STATE_AUTH_REQUIRED"
TERMINAL = frozenset({COMPLETED, FAILED, CANCELED, REJECTED})
INTERRUPTED = frozenset({INPUT_REQUIRED, AUTH_REQUIRED})
STATES = frozenset({SUBMITTED, WORKING}) | TERMINAL | INTERRUPTED

STATE_OF_ERROR = MappingProxyType(
    {
        C.CANCELLED: CANCELED,
        C.INVALID_ARGUMENT: REJECTED,
        C.PERMISSION_DENIED: REJECTED,
        C.OUT_OF_RANGE: REJECTED,
        C.UNAUTHENTICATED: REJECTED,
    }
)
"""By the code of the error that the agent answered; all others: FAILED."""

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603

_DOMAIN = "a2a-protocol.org"
_MINOR = re.compile(r"1\.0(\.\d+)?")


class A2aError(rpc.Error):
    """An error that A2A has a number for.

    Attributes:
        number: JSON-RPC error code.
        domain: of its ErrorInfo.
        http_status: as A2A's HTTP binding has it.
    """

    number: ClassVar[int]
    http_status: ClassVar[int] = 400
    domain: ClassVar[str] = _DOMAIN


class TaskNotFound(A2aError, rpc.NotFound):
    """There is no such task."""

    reason, number, http_status = "TASK_NOT_FOUND", -32001, 404


class TaskNotCancelable(A2aError, rpc.FailedPrecondition):
    """The task has ended; it cannot be cancelled."""

    reason, number = "TASK_NOT_CANCELABLE", -32002


class UnsupportedOperation(A2aError, rpc.FailedPrecondition):
    """This cannot be done here, or not now."""

    reason, number = "UNSUPPORTED_OPERATION", -32004


class ContentTypeNotSupported(A2aError, rpc.InvalidArgument):
    """The skill takes, or gives, nothing of this media type."""

    reason, number = "CONTENT_TYPE_NOT_SUPPORTED", -32005


class VersionNotSupported(A2aError, rpc.FailedPrecondition):
    """This door speaks A2A 1.0: send `A2A-Version: 1.0`."""

    reason, number = "VERSION_NOT_SUPPORTED", -32009


class Malformed(rpc.InvalidArgument):
    """What came is no request of this binding.

    Args:
        number: JSON-RPC error code.
    """

    def __init__(self, message: str, number: int = INVALID_REQUEST) -> None:
        super().__init__(message, reason="MALFORMED_REQUEST")
        self.number = number


class OperationUnknown(rpc.Unimplemented):
    """A2A has no operation of this name."""

    reason, number, http_status = "OPERATION_UNKNOWN", METHOD_NOT_FOUND, 404


class ConfigNotFound(rpc.NotFound):
    """The task has no push notification config of this id."""

    reason, number = "PUSH_CONFIG_NOT_FOUND", INVALID_PARAMS


def check_version(asked: str) -> None:
    """Refuses a version that is not spoken; none at all means 0.3.

    Raises:
        VersionNotSupported: it is another.
    """
    if not _MINOR.fullmatch(asked.strip()):
        raise VersionNotSupported


def timestamp(when: datetime) -> bytes:
    """A point in time as ProtoJSON has it."""
    text = when.astimezone(UTC).isoformat(timespec="microseconds")
    return text.replace("+00:00", "Z").encode()


def message(
    message_id: str,
    parts: bytes,
    *,
    context_id: str,
    task_id: str = "",
    metadata: Json | None = None,
) -> bytes:
    """A Message of the agent, with parts as JSON."""
    head: Json = {"messageId": message_id, "role": "ROLE_AGENT", "contextId": context_id}
    if task_id:
        head["taskId"] = task_id
    if metadata:
        head["metadata"] = metadata
        head["extensions"] = [EXTENSION]
    return orjson.dumps(head)[:-1] + b',"parts":[' + parts + b"]}"
