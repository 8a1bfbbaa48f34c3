"""What goes wrong with a tool of an MCP server, as errors of RPC. What the server says is repeated, bounded and cleaned."""

from __future__ import annotations

import re
from typing import Any

import mcp_types as types
from mcp.shared.exceptions import MCPError

from weft import rpc
from weft.agents.remote.mcp import transport
from weft.agents.remote.names import clean

_LONGEST = 1_500  # characters
_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,62}")  # AIP-193
_OWN_ERROR = "dev.weft/error"  # under which a gateway of Weft tells what its agent answered

# Not to be had now; there is no need to ask in another way.
AWAY = frozenset({transport.UNREACHABLE, transport.REFUSED, transport.TOO_LARGE})

_BY_CODE: dict[int, tuple[type[rpc.Error], str]] = {
    transport.UNREACHABLE: (rpc.Unavailable, "REMOTE_UNREACHABLE"),
    transport.REFUSED: (rpc.FailedPrecondition, "REMOTE_REFUSED"),
    transport.TOO_LARGE: (rpc.OutOfRange, "REMOTE_ANSWER_TOO_LARGE"),
    types.CONNECTION_CLOSED: (rpc.Unavailable, "REMOTE_CONNECTION_LOST"),
    types.REQUEST_TIMEOUT: (rpc.DeadlineExceeded, "REMOTE_TIMEOUT"),
    types.INVALID_PARAMS: (rpc.InvalidArgument, "REMOTE_INVALID_PARAMS"),
    types.METHOD_NOT_FOUND: (rpc.Unimplemented, "REMOTE_METHOD_NOT_FOUND"),
    types.URL_ELICITATION_REQUIRED: (rpc.FailedPrecondition, "AUTH_REQUIRED"),
    -32002: (rpc.NotFound, "REMOTE_NOT_FOUND"),
}
_BY_STATUS: dict[int, tuple[type[rpc.Error], str]] = {
    # It is the mesh that has no right, not who called.
    401: (rpc.FailedPrecondition, "REMOTE_UNAUTHENTICATED"),
    403: (rpc.FailedPrecondition, "REMOTE_FORBIDDEN"),
    404: (rpc.Unavailable, "REMOTE_SESSION_GONE"),
    408: (rpc.Unavailable, "REMOTE_TIMEOUT"),
    413: (rpc.InvalidArgument, "REMOTE_REQUEST_TOO_LARGE"),
    429: (rpc.ResourceExhausted, "REMOTE_RATE_LIMITED"),
    502: (rpc.Unavailable, "REMOTE_UNAVAILABLE"),
    503: (rpc.Unavailable, "REMOTE_UNAVAILABLE"),
    504: (rpc.Unavailable, "REMOTE_TIMEOUT"),
}
_BY_NAME = {
    each.code: each
    for each in (
        *(rpc.InvalidArgument, rpc.NotFound, rpc.AlreadyExists, rpc.ResourceExhausted),
        *(rpc.FailedPrecondition, rpc.Aborted, rpc.OutOfRange, rpc.Unimplemented, rpc.Internal),
        *(rpc.Unavailable, rpc.DataLoss, rpc.DeadlineExceeded),
    )
}


class ToolFailed(rpc.FailedPrecondition):
    """The tool could not do it."""

    reason = "TOOL_FAILED"


def error_of(failed: MCPError) -> rpc.Error:
    """An error of JSON-RPC."""
    error = failed.error
    said = clean(error.message, _LONGEST) or "The server gives no reason."
    if error.code == transport.STATUS and isinstance(error.data, int):
        kind, reason = _BY_STATUS.get(error.data, (rpc.Unknown, "REMOTE_ANSWERED_ERROR"))
        return kind(said, reason=reason, metadata={"http_status": str(error.data)})
    kind, reason = _BY_CODE.get(error.code, (rpc.Unknown, "REMOTE_ERROR"))
    return kind(said, reason=reason, metadata={"code": str(error.code)})


def tool_failed(result: types.CallToolResult) -> rpc.Error:
    """A result that says that the tool failed."""
    texts = [each.text for each in result.content if isinstance(each, types.TextContent)]
    said = clean("\n".join(texts), _LONGEST) or "The tool failed and gives no reason."
    own = (result.meta or {}).get(_OWN_ERROR)
    if isinstance(own, dict) and isinstance(own.get("status"), str):
        # A skill of another mesh: its status is as good as one of this mesh, but for who calls.
        for code, kind in _BY_NAME.items():
            if code.name == own["status"]:
                message = clean(own.get("message"), _LONGEST)
                return kind(message or said, reason=_reason(own) or ToolFailed.reason)
    return ToolFailed(said)


def _reason(error: dict[str, Any]) -> str:
    details = error.get("details")
    for each in details if isinstance(details, list) else []:
        reason = each.get("reason") if isinstance(each, dict) else None
        if isinstance(reason, str) and _REASON.fullmatch(reason):
            return reason
    return ""


def invalid(text: str) -> rpc.Error:
    """An answer that cannot be made use of."""
    return rpc.Internal(text, reason="REMOTE_ANSWER_INVALID")


