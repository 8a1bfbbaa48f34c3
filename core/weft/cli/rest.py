"""The gateway as a command sees it: JSON over HTTP, events as they come."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from weft import rpc

_SLACK = 5.0  # seconds beyond the deadline that the gateway keeps
_OK = 200
ENTRY = "/v1/support:handle"  # where a question comes in


class GatewayUnreachable(OSError):
    """Nothing answers at the gateway's address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A gateway.

    Attributes:
        url: its base URL.
        key: API key; empty: none.
        timeout: seconds a request may take.
    """

    url: str
    key: str = ""
    timeout: float = 60.0

    def get(self, path: str) -> Any:
        """The JSON document at a path.

        Raises:
            GatewayUnreachable: nothing answers.
            rpc.Error: the gateway says why not.
        """
        connection, response = self._send("GET", path, None)
        with contextlib.closing(connection):
            return _read(response)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON answer to a request. Raises as `get`."""
        connection, response = self._send("POST", path, body)
        with contextlib.closing(connection):
            return _read(response)

    def delete(self, path: str) -> Any:
        """The JSON answer to a removal. Raises as `get`."""
        connection, response = self._send("DELETE", path, None)
        with contextlib.closing(connection):
            return _read(response)

    def events(self, path: str, body: Mapping[str, Any] | None = None) -> Iterator[Any]:
        """The messages of a server-streaming method as they come; with no body by GET. Raises as `get`."""
        method = "GET" if body is None else "POST"
        connection, response = self._send(method, path, body, accept="text/event-stream")
        with contextlib.closing(connection):
            if response.status != _OK:
                _read(response)
            kind = "message"
            for raw in response:
                line = raw.decode().rstrip("\r\n")
                field, _, value = line.partition(": ")
                if field == "event":
                    kind = value
                elif field == "data" and kind == "message":
                    yield json.loads(value)
                elif field == "data" and kind == "error":
                    raise _error(value.encode(), response)
                elif field == "data":
                    return
                elif not line:
                    kind = "message"

    def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None, accept: str = ""
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        parts = urlsplit(self.url)
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        connection = kind(parts.netloc, timeout=self.timeout + _SLACK)
        headers = {"accept": accept or "application/json"}
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        if body is not None:
            headers["content-type"] = "application/json"
            headers["x-request-timeout"] = f"{self.timeout:g}"
        sent = None if body is None else json.dumps(body)
        try:
            connection.request(method, parts.path.rstrip("/") + path, sent, headers)
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as failed:
            connection.close()
            raise GatewayUnreachable(f"{self.url}: {failed or type(failed).__name__}") from failed


def serves(gateway: Gateway, path: str = ENTRY) -> bool:
    """Whether a gateway is there and has a route of this path."""
    try:
        return path in gateway.get("/openapi.json")["paths"]
    except (GatewayUnreachable, ValueError, KeyError, TypeError):
        return False


def _read(response: http.client.HTTPResponse) -> Any:
    content = response.read()
    if response.status == _OK:
        return json.loads(content)
    raise _error(content, response)


def _error(content: bytes, response: http.client.HTTPResponse) -> rpc.Error:
    """The error behind an answer in the form of AIP-193."""
    from google.protobuf import json_format
    from google.rpc import code_pb2, status_pb2

    from weft import rpc

    try:
        told = json.loads(content)["error"]
        status = status_pb2.Status(
            code=code_pb2.Code.Value(told["status"]), message=told["message"]
        )
        for detail in told.get("details", ()):
            json_format.ParseDict(detail, status.details.add())
        return rpc.error_from_status(status)
    except (ValueError, KeyError, TypeError, json_format.ParseError):
        return rpc.Unknown(f"the gateway answered HTTP {response.status} {response.reason}")
