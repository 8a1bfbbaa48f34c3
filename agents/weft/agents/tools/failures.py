"""What goes wrong with tools, for callers in full and for models in words that tell nothing of what is inside."""

from __future__ import annotations

import logging

import grpc

from weft import rpc
from weft.rpc.errors import error_from_exception

log = logging.getLogger("weft.agents.tools")

C = grpc.StatusCode

_LONGEST = 1_000  # characters of a message that a model is told
# Their messages are written for whoever asked; of all others a model is told one of these sentences.
_TOLD = frozenset(
    {
        *(C.INVALID_ARGUMENT, C.NOT_FOUND, C.ALREADY_EXISTS, C.FAILED_PRECONDITION),
        *(C.OUT_OF_RANGE, C.ABORTED, C.RESOURCE_EXHAUSTED, C.UNIMPLEMENTED),
    }
)
_SENTENCES = {
    C.PERMISSION_DENIED: "The caller may not do this.",
    C.UNAUTHENTICATED: "The caller is not known to it.",
    C.DEADLINE_EXCEEDED: "It did not answer in time.",
    C.UNAVAILABLE: "It cannot be reached now.",
    C.CANCELLED: "It was cancelled.",
}
_FAILED = "It failed."


class ToolUnknown(rpc.NotFound):
    """There is no tool of this name."""

    reason = "TOOL_UNKNOWN"


class ToolLimited(rpc.ResourceExhausted):
    """The tool was used too often; try again later."""

    reason = "TOOL_RATE_LIMITED"


class ToolBroken(rpc.Internal):
    """The tool failed; the log says why, by the trace id."""

    reason = "TOOL_BROKEN"


class ResultTooLarge(rpc.OutOfRange):
    """The result is larger than a model is given; ask for less."""

    reason = "RESULT_TOO_LARGE"


class NestedTooDeep(rpc.FailedPrecondition):
    """Tools that use tools are nested too deeply."""

    reason = "TOOLS_NESTED_TOO_DEEP"


def error_of(tool: str, failed: Exception) -> rpc.Error:
    """What a caller is told; what nobody foresaw is logged."""
    error = error_from_exception(failed)
    if error is None:
        log.error("the tool %s failed", tool, exc_info=failed)
        error = ToolBroken()
    error.metadata.setdefault("tool", tool)
    return error


def told_to_model(error: rpc.Error) -> str:
    """What a model is told."""
    said = error.message[:_LONGEST] if error.code in _TOLD else _SENTENCES.get(error.code, _FAILED)
    wait = getattr(error, "retry_after", None)
    later = f" Try again in {wait.total_seconds():.3g} s." if wait is not None else ""
    return f"{error.code.name}: {said}" + ("" if later.strip() in said else later)
