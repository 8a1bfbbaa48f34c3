"""Errors that are a server's own fault, told to Sentry: what kind, where in the code, in which method. Nothing else.

No payload, no metadata, no local variable, no text of an exception (it may quote either), no breadcrumb leaves the process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sentry_sdk import Client

Report = Callable[[BaseException, Mapping[str, str]], None]
"""Takes an error, and what is known of it: rpc.method, rpc.response.status_code, weft.agent, trace_id."""

MOST = 10  # a second: a storm of failures must not become one of reports
_FLUSH = 2.0  # seconds
_KEPT = frozenset({"type", "module", "stacktrace", "mechanism"})


class Sentry:
    """Reports errors. Not thread-safe: it lives on the event loop; a thread of the SDK's sends.

    Args:
        dsn: of a project.
        service: what the process is.

    Raises:
        ValueError: it is no DSN, or the SDK is not installed.
    """

    def __init__(self, dsn: str, service: str) -> None:
        self._client = _client(dsn)
        self._service = service
        self._second = 0
        self._reported = 0

    def __call__(self, failed: BaseException, known: Mapping[str, str]) -> None:
        """See `Report`."""
        from sentry_sdk.utils import event_from_exception

        second = int(time.monotonic())
        if second != self._second:
            self._second, self._reported = second, 0
        self._reported += 1
        if self._reported > MOST:
            return
        event, hint = event_from_exception(failed, client_options=self._client.options)
        event["tags"] = {"service": self._service, **known}
        event["transaction"] = known.get("rpc.method", "")
        self._client.capture_event(event, hint=hint)

    def close(self) -> None:
        """Sends what is left; it may take a while."""
        self._client.close(timeout=_FLUSH)


def _client(dsn: str) -> Client:
    try:
        import sentry_sdk
        from sentry_sdk.utils import BadDsn
    except ImportError:
        raise ValueError("sentry_dsn needs the extra: pip install 'weft[sentry]'") from None
    try:
        return sentry_sdk.Client(
            dsn=dsn,
            release=f"weft@{version('weft')}",
            server_name="",
            default_integrations=False,
            auto_enabling_integrations=False,
            include_local_variables=False,
            include_source_context=False,
            max_request_body_size="never",
            max_breadcrumbs=0,
            before_send=_cleaned,
        )
    except BadDsn:
        raise ValueError("sentry_dsn is no DSN, such as https://KEY@HOST/PROJECT") from None


def _cleaned(event: Any, hint: Any) -> Any:
    """Leaves of exceptions what they are and where they were raised."""
    del hint
    for each in event.get("exception", {}).get("values", ()):
        for name in each.keys() - _KEPT:
            del each[name]
        for frame in each.get("stacktrace", {}).get("frames", ()):
            frame.pop("vars", None)
    for name in ("breadcrumbs", "request", "user", "extra", "modules", "logentry"):
        event.pop(name, None)
    return event
