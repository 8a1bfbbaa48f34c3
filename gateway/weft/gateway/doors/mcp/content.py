"""What an agent answers, as content of a tool result or of a resource.

A message is JSON, as text and as structured content. A skill that answers with google.api.HttpBody says
itself what its bytes are, by their media type:

- text/*: text;
- image/* and audio/*: an image, a sound;
- anything else: an embedded resource, as text where it is JSON, XML or the like, else as a blob.

A stream of HttpBody gives one block for each message.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import orjson
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import DecodeError

from weft import rpc
from weft.gateway import failures
from weft.gateway.doors.mcp.protocol import OWN_META, Outcome
from weft.gateway.doors.mcp.schemas import is_object
from weft.gateway.transcoding.catalog import Method

Json = dict[str, Any]
Block = Callable[[bytes], Json]

_HTTP_BODY = HttpBody.DESCRIPTOR.full_name
_BINARY = "application/octet-stream"
_TEXTUAL = ("+json", "+xml", "/json", "/xml", "/yaml", "/javascript", "/x-ndjson")
_MOST_TOLD = 2_000  # characters of a message in a progress notification


class Content:
    """How the answers of one skill are shown."""

    def __init__(self, method: Method) -> None:
        self._codec = method.response_codec
        self._raw = method.output.full_name == _HTTP_BODY
        self._uri = f"weft://agents/{method.agent.name}/skills/{method.name}"
        self.structured = not self._raw and is_object(method.output)

    def one(self, reply: bytes) -> Outcome:
        """The result of a unary skill.

        Raises:
            rpc.Internal: the agent did not answer with what its contract says.
        """
        if self._raw:
            return Outcome(body=orjson.dumps({"content": self.blocks([reply])}))
        json = self._codec.to_json(reply)
        return _told(json, json if self.structured else b"")

    def many(self, replies: list[bytes]) -> Outcome:
        """The result of a skill that answers with a stream."""
        if self._raw:
            return Outcome(body=orjson.dumps({"content": self.blocks(replies)}))
        json = b'{"messages":[' + b",".join(map(self._codec.to_json, replies)) + b"]}"
        return _told(json, json if self.structured else b"")

    def blocks(self, replies: list[bytes]) -> list[Json]:
        """The answer as contents that stand for themselves."""
        if self._raw:
            return [_block(_http_body(each), self._uri) for each in replies]
        return [{"type": "text", "text": self._codec.to_json(each).decode()} for each in replies]

    def brief(self, reply: bytes) -> str:
        """One message of a stream, in a line."""
        if not self._raw:
            text = self._codec.to_json(reply).decode()
        else:
            body = _http_body(reply)
            text = _as_text(body) or body.content_type
        return text if len(text) <= _MOST_TOLD else text[:_MOST_TOLD] + "…"

    def resource(self, uri: str, reply: bytes) -> Outcome:
        """The answer as the contents of a resource."""
        if not self._raw:
            text = self._codec.to_json(reply).decode()
            shown: Json = {"uri": uri, "mimeType": "application/json", "text": text}
        else:
            shown = _resource(_http_body(reply), uri)
        return Outcome(body=orjson.dumps({"contents": [shown]}))


def failed(error: rpc.Error) -> Outcome:
    """An agent's error as the result of a tool: in words for a model, and with its details for a program."""
    lines = [f"{error.code.name}: {error.message}"]
    shown = failures.aip193(error)
    for detail in orjson.loads(shown)["error"]["details"]:
        lines += [
            f"- {each.get('field', '')}: {each.get('description', '')}"
            for each in detail.get("fieldViolations", ())
        ]
    body = {"content": [{"type": "text", "text": "\n".join(lines)}], "isError": True}
    # Not structured content: that must fit the tool's output schema.
    meta = b'"' + OWN_META.encode() + shown[2:-1]
    return Outcome(body=orjson.dumps(body), meta=meta, error=error)


def _told(json: bytes, structured: bytes) -> Outcome:
    body = b'{"content":[{"type":"text","text":' + orjson.dumps(json.decode()) + b"}]"
    if structured:
        body += b',"structuredContent":' + structured
    return Outcome(body=body + b"}")


def _http_body(reply: bytes) -> HttpBody:
    try:
        return HttpBody.FromString(reply)
    except DecodeError:
        raise rpc.Internal("The agent's answer is no google.api.HttpBody.") from None


def _block(body: HttpBody, uri: str) -> Json:
    kind = _media_type(body)
    family = kind.partition("/")[0]
    if family == "text":
        return {"type": "text", "text": body.data.decode(errors="replace")}
    if family in {"image", "audio"}:
        return {"type": family, "data": base64.b64encode(body.data).decode(), "mimeType": kind}
    return {"type": "resource", "resource": _resource(body, uri)}


def _resource(body: HttpBody, uri: str) -> Json:
    shown: Json = {"uri": uri, "mimeType": _media_type(body)}
    text = _as_text(body)
    if text is None:
        shown["blob"] = base64.b64encode(body.data).decode()
    else:
        shown["text"] = text
    return shown


def _as_text(body: HttpBody) -> str | None:
    kind = _media_type(body)
    if not (kind.startswith("text/") or kind.endswith(_TEXTUAL)):
        return None
    try:
        return str(body.data, "utf-8")
    except UnicodeDecodeError:
        return None


def _media_type(body: HttpBody) -> str:
    return body.content_type.partition(";")[0].strip().lower() or _BINARY
