"""What goes wrong with a tool of an MCP server, as errors of RPC. What the server says is repeated, bounded and cleaned."""

from __future__ import annotations

import mcp_types as types
from mcp.shared.exceptions import MCPError

from weft import rpc
from weft.agents.remote.mcp import transport
from weft.agents.remote.names import clean
from weft.agents.remote.statuses import LONGEST, of_mesh, of_status

_OWN_ERROR = "dev.weft/error"  # under which a gateway of Weft tells what its agent answered
_RESOURCE_NOT_FOUND = -32_002

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
    _RESOURCE_NOT_FOUND: (rpc.NotFound, "REMOTE_NOT_FOUND"),
}


class ToolFailed(rpc.FailedPrecondition):
    """The tool could not do it."""

    reason = "TOOL_FAILED"


def error_of(failed: MCPError) -> rpc.Error:
    """An error of JSON-RPC."""
    error = failed.error
    if error.code == transport.STATUS and isinstance(error.data, int):
        return of_status(error.data)
    if error.code == types.PARSE_ERROR:
        return invalid("The server's answer is not what its protocol says.")
    said = clean(error.message, LONGEST) or "The server gives no reason."
    kind, reason = _BY_CODE.get(error.code, (rpc.Unknown, "REMOTE_ERROR"))
    return kind(said, reason=reason, metadata={"code": str(error.code)})


def tool_failed(result: types.CallToolResult) -> rpc.Error:
    """A result that says that the tool failed."""
    # A skill of another mesh: its status is as good as one of this mesh.
    told = of_mesh((result.meta or {}).get(_OWN_ERROR), otherwise=ToolFailed.reason)
    if told is not None:
        return told
    texts = [each.text for each in result.content if isinstance(each, types.TextContent)]
    return ToolFailed(clean("\n".join(texts), LONGEST) or None)


def invalid(text: str) -> rpc.Error:
    """An answer that cannot be made use of."""
    return rpc.Internal(text, reason="REMOTE_ANSWER_INVALID")
