"""What a remote answers with, as errors of RPC: HTTP statuses, and errors that another mesh told with its answer."""

from __future__ import annotations

import re
from datetime import timedelta

from weft import rpc
from weft.agents.remote.names import clean

LONGEST = 1_500  # characters of what a remote says is wrong

_RETRY = timedelta(seconds=5)
_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,62}")  # AIP-193
_BY_STATUS: dict[int, tuple[type[rpc.Error], str]] = {
    # It is the mesh that has no right, not who called.
    401: (rpc.FailedPrecondition, "REMOTE_UNAUTHENTICATED"),
    403: (rpc.FailedPrecondition, "REMOTE_FORBIDDEN"),
    404: (rpc.Unavailable, "REMOTE_NOT_THERE"),
    408: (rpc.Unavailable, "REMOTE_TIMEOUT"),
    413: (rpc.InvalidArgument, "REMOTE_REQUEST_TOO_LARGE"),
    429: (rpc.ResourceExhausted, "REMOTE_RATE_LIMITED"),
    502: (rpc.Unavailable, "REMOTE_UNAVAILABLE"),
    503: (rpc.Unavailable, "REMOTE_UNAVAILABLE"),
    504: (rpc.Unavailable, "REMOTE_TIMEOUT"),
}
# All but those that speak of who calls: to the remote that is the mesh.
_BY_NAME = {
    each.code.name: each
    for each in (
        *(rpc.InvalidArgument, rpc.NotFound, rpc.AlreadyExists, rpc.ResourceExhausted),
        *(rpc.FailedPrecondition, rpc.Aborted, rpc.OutOfRange, rpc.Unimplemented, rpc.Internal),
        *(rpc.Unavailable, rpc.DataLoss, rpc.DeadlineExceeded),
    )
}


def of_status(status: int) -> rpc.Error:
    """An HTTP status with which a request failed."""
    said = f"The remote answered with HTTP status {status}."
    kind, reason = _BY_STATUS.get(status, (rpc.Unknown, "REMOTE_ANSWERED_ERROR"))
    metadata = {"http_status": str(status)}
    if kind is rpc.Unavailable:
        return rpc.Unavailable(said, reason=reason, metadata=metadata, retry_after=_RETRY)
    return kind(said, reason=reason, metadata=metadata)


def of_mesh(told: object, *, otherwise: str) -> rpc.Error | None:
    """The error of a skill of another mesh, as its door told it (AIP-193); None: it told none.

    Args:
        told: what was told.
        otherwise: reason of an error that names none.
    """
    if not isinstance(told, dict):
        return None
    kind = _BY_NAME.get(told["status"]) if isinstance(told.get("status"), str) else None
    message = clean(told.get("message"), LONGEST)
    if kind is None or not message:
        return None
    details = told.get("details")
    for each in details if isinstance(details, list) else []:
        reason = each.get("reason") if isinstance(each, dict) else None
        if isinstance(reason, str) and _REASON.fullmatch(reason):
            return kind(message, reason=reason)
    return kind(message, reason=otherwise)
