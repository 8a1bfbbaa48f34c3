"""Streams of the Connect protocol (connectrpc.com/docs/protocol#streaming-rpcs), server to caller.

Streams of requests are not served: HTTP/1.1 cannot carry both directions at once, and gRPC does.
"""

from __future__ import annotations

from typing import Any

import orjson

from weft import rpc
from weft.gateway import failures
from weft.gateway.doors.connect import NAME, check_version
from weft.gateway.doors.envelope import frame
from weft.gateway.doors.framed import Framed
from weft.gateway.metadata import Beside, to_lists

_END = 0x02


class ConnectStream(Framed):
    """Serves application/connect+json and application/connect+proto."""

    name = NAME
    encoding = b"connect-content-encoding"
    accepts = b"connect-accept-encoding"

    def check(self, headers: dict[bytes, bytes]) -> None:
        """See Framed."""
        check_version(headers.get(b"connect-protocol-version", b""), b"1")

    def end(self, error: rpc.Error | None, beside: Beside | None) -> bytes:
        """The EndStreamResponse."""
        said: dict[str, Any] = {}
        if error is not None:
            said["error"] = failures.connect_object(error)
        if beside is not None and beside.trailing and (trailing := to_lists(beside.trailing)):
            said["metadata"] = trailing
        return frame(_END, orjson.dumps(said))
