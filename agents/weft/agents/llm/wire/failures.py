"""What the SDK and its HTTP client raise, as errors of the mesh.

The SDK's classes do not say enough: an error event in a stream is a plain APIStatusError of status 200, what goes wrong while
a stream is read comes as the HTTP client's own exceptions, and a line that is no JSON as a ValueError.
"""

from __future__ import annotations

import email.utils
import logging
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from weft import rpc
from weft.agents.llm import errors
from weft.agents.llm.errors import Failure

log = logging.getLogger("weft.agents.llm")

_OK = 200
_SERVER_ERRORS = 500
_LONGEST = timedelta(days=1).total_seconds()
# platform.claude.com/docs/en/api/errors
_BY_TYPE: Mapping[str, type[rpc.Error]] = {
    "overloaded_error": errors.ModelOverloaded,
    "rate_limit_error": errors.ModelRateLimited,
    "api_error": errors.ModelUnavailable,
    "timeout_error": errors.ModelUnavailable,
    "authentication_error": errors.ModelCredentials,
    "permission_error": errors.ModelCredentials,
    "billing_error": errors.ModelCredentials,
    "invalid_request_error": errors.ModelRejected,
    "not_found_error": errors.ModelRejected,
    "request_too_large": errors.ModelRejected,
}
_BY_STATUS: Mapping[int, type[rpc.Error]] = {
    401: errors.ModelCredentials,
    402: errors.ModelCredentials,
    403: errors.ModelCredentials,
    408: errors.ModelUnavailable,
    409: errors.ModelUnavailable,
    429: errors.ModelRateLimited,
    529: errors.ModelOverloaded,
}


def translated(  # noqa: PLR0911 a case each
    failed: Exception, where: Mapping[str, str]
) -> rpc.Error | None:
    """The error of the mesh for an exception of a request; None: it is none of those.

    Args:
        failed: what was raised.
        where: metadata: model and endpoint.
    """
    import anthropic
    import httpx2

    metadata = dict(where)
    match failed:
        case rpc.Error():
            return failed
        case anthropic.APIStatusError():
            return _of_status(failed, metadata)
        case anthropic.APIResponseValidationError():
            return errors.AnswerMalformed(metadata=metadata)
        case anthropic.APITimeoutError():
            connecting = isinstance(failed.__cause__, httpx2.ConnectTimeout | httpx2.PoolTimeout)
            kind = errors.ModelUnavailable if connecting else errors.ModelStalled
            return kind(metadata=metadata)
        case anthropic.APIConnectionError():
            return errors.ModelUnavailable(metadata=metadata)
        case httpx2.TimeoutException():
            return errors.ModelStalled(metadata=metadata)
        case httpx2.HTTPError() | httpx2.StreamError():
            return errors.StreamBroken(metadata=metadata)
        case ValueError() | TypeError() | LookupError() | AttributeError() | AssertionError():
            log.warning("an answer cannot be read", exc_info=failed, extra=metadata)
            return errors.AnswerMalformed(metadata=metadata)
    return None


def _of_status(failed: Any, metadata: dict[str, str]) -> rpc.Error:
    kind = _BY_TYPE.get(str(failed.type)) or _BY_STATUS.get(failed.status_code)
    if kind is None:
        # 200: it is an error event in a stream.
        refused = _OK < failed.status_code < _SERVER_ERRORS
        kind = errors.ModelRejected if refused else errors.ModelUnavailable
    metadata["status"] = str(failed.status_code)
    if failed.request_id:
        metadata["request_id"] = failed.request_id
    log.warning("a model's endpoint failed: %s", failed.api_message, extra=metadata)
    error: rpc.Error
    after = _retry_after(failed.response.headers)
    if issubclass(kind, rpc.ResourceExhausted | rpc.Unavailable):
        error = kind(metadata=metadata, retry_after=after)
    else:
        error = kind(metadata=metadata)
    if isinstance(error, Failure) and failed.response.headers.get("x-should-retry") == "false":
        error.again = False
    return error


def _retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """How long to wait; None: nobody said (RFC 9110, 10.2.3)."""
    try:
        if said := headers.get("retry-after-ms"):
            seconds = float(said) / 1000
        elif said := headers.get("retry-after"):
            seconds = _seconds(said)
        else:
            return None
    except (ValueError, TypeError, OverflowError):
        return None
    return timedelta(seconds=min(max(seconds, 0.0), _LONGEST)) if seconds == seconds else None  # noqa: PLR0124 not a number


def _seconds(said: str) -> float:
    try:
        return float(said)
    except ValueError:
        return email.utils.parsedate_to_datetime(said).timestamp() - time.time()
