"""What a tool answers with, as messages."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import mcp_types as types
from google.protobuf.message import Message

from weft.agents.remote.mcp.errors import invalid
from weft.agents.remote.values import Misfit, fill
from weft.remote.v1 import content_pb2

RESULT = content_pb2.ToolResult.DESCRIPTOR.full_name


def response(result: types.CallToolResult, kind: type[Message]) -> bytes:
    """The answer to a call.

    Args:
        result: what the tool answered with.
        kind: the message that its contract promises.

    Raises:
        rpc.Error: it is another one.
    """
    if kind.DESCRIPTOR.full_name == RESULT:
        return _contents(result).SerializeToString()
    if result.structured_content is None:
        raise invalid("The tool gave no structured content, which its schema promises.")
    message = kind()
    try:
        fill(message, result.structured_content)
    except Misfit as wrong:
        raise invalid(f"The tool's answer does not fit its schema: {wrong}") from None
    return message.SerializeToString()


def _contents(result: types.CallToolResult) -> content_pb2.ToolResult:
    made = content_pb2.ToolResult()
    for each in result.content:
        _add(made.contents.add(), each)
    made.text = "\n".join(
        _text(each.text) for each in result.content if isinstance(each, types.TextContent)
    )
    if result.structured_content is not None:
        try:
            fill(made.structured_content, result.structured_content)
        except Misfit as wrong:
            raise invalid(f"The tool's answer cannot be said: {wrong}") from None
    return made


def _add(made: content_pb2.Content, given: Any) -> None:
    match given:
        case types.TextContent():
            made.text = _text(given.text)
        case types.ImageContent() | types.AudioContent():
            made.media.data = _bytes(given.data)
            made.media.media_type = _text(given.mime_type)
        case types.EmbeddedResource():
            held = given.resource
            made.resource.uri = _text(str(held.uri))
            made.resource.media_type = _text(held.mime_type or "")
            if isinstance(held, types.TextResourceContents):
                made.resource.text = _text(held.text)
            else:
                made.resource.data = _bytes(held.blob)
        case types.ResourceLink():
            made.link.uri = _text(str(given.uri))
            made.link.name = _text(given.name)
            made.link.description = _text(given.description or "")
            made.link.media_type = _text(given.mime_type or "")


def _text(value: str) -> str:
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _bytes(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise invalid("The tool's answer holds what is no base64.") from None
