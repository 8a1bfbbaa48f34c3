"""The JSON-RPC binding of A2A (specification, 9): the operation stands in the body."""

from __future__ import annotations

from typing import Any

import orjson

from weft import rpc
from weft.gateway import failures
from weft.gateway.doors.a2a import errors, protocol
from weft.gateway.doors.a2a.protocol import ContentTypeNotSupported, Json, Malformed
from weft.gateway.doors.a2a.sending import Events, send
from weft.gateway.http.exchange import JSON, Exchange

_MOST_ID = 1_000  # characters


class JsonRpc:
    """One request by this binding.

    Attributes:
        id: of the request, as JSON; empty: not known.
        operation: what is asked for.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.id = b""
        self.operation = ""

    def read(self, body: bytes) -> Json:
        """Reads the request; returns the operation's parameters.

        Raises:
            Malformed: it is no request.
            ContentTypeNotSupported: it says that it is something else than JSON.
        """
        if _media(self._exchange) not in {b"", JSON}:
            raise ContentTypeNotSupported("JSON-RPC is application/json.")
        try:
            message: Any = orjson.loads(body)
        except orjson.JSONDecodeError as failed:
            raise Malformed(f"The body is not JSON: {failed}", protocol.PARSE_ERROR) from None
        if not isinstance(message, dict):
            raise Malformed("The body must be one request; there are no batches in A2A.")
        self.id = _id(message.get("id"))
        if message.get("jsonrpc") != "2.0" or not isinstance(message.get("method"), str):
            raise Malformed('A request has "jsonrpc": "2.0" and a method.')
        if not self.id:
            raise Malformed("A request has an id: a string or an integer.")
        params = message.get("params", {})
        if not isinstance(params, dict):
            raise Malformed("params must be an object.", protocol.INVALID_PARAMS)
        self.operation = message["method"]
        return params

    async def answer(self, result: bytes) -> None:
        """Answers with a result."""
        await self._exchange.reply(200, self._wrap(result))

    async def stream(self, events: Events) -> rpc.Error | None:
        """Answers with events."""
        return await send(self._exchange, events, self._wrap, self._render)

    async def fail(self, error: rpc.Error) -> None:
        """Answers with an error."""
        headers = failures.http_headers(error)
        status = errors.json_rpc_status(error)
        await self._exchange.reply(status, self._render(error), headers=headers)

    def _wrap(self, result: bytes) -> bytes:
        return b'{"jsonrpc":"2.0","id":' + self.id + b',"result":' + result + b"}"

    def _render(self, error: rpc.Error) -> bytes:
        return errors.json_rpc(error, self.id)


def _id(given: object) -> bytes:
    if isinstance(given, str) and len(given) <= _MOST_ID:
        return orjson.dumps(given)
    if isinstance(given, int) and not isinstance(given, bool):
        return orjson.dumps(given)
    return b""


def _media(exchange: Exchange) -> bytes:
    return exchange.header(b"content-type").partition(b";")[0].strip().lower()
