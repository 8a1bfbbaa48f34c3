"""Requests and answers of the Messages API (platform.claude.com/docs/en/api/messages)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from weft.testing.messages_server.scenarios import Scenario

Json = dict[str, Any]
_PIECE = 12  # characters of a text that come at once
_BYTES_OF_TOKEN = 4
_NUMBERS = itertools.count(1)
# As the API version 2026-10-21 does.
_GONE = ("temperature", "top_p", "top_k")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavour:
    """How much of the API a server knows.

    Attributes:
        tool_choice: whether it does what tool_choice says.
        output_config: whether it does what output_config.format says.
        caching: whether it keeps prompts.
        strict: whether it refuses what the API refuses.
    """

    tool_choice: bool = True
    output_config: bool = True
    caching: bool = True
    strict: bool = True


FLAVOURS: Mapping[str, Flavour] = {
    "claude": Flavour(),
    "ollama": Flavour(tool_choice=False, output_config=False, caching=False, strict=False),
    "vllm": Flavour(caching=False, strict=False),
    "litellm": Flavour(strict=False),
}


def fault_of(request: Json, flavour: Flavour) -> str:
    """What is wrong with a request; empty: nothing."""
    messages = request.get("messages")
    if not isinstance(request.get("model"), str) or not isinstance(messages, list) or not messages:
        return "model and messages are required"
    if not isinstance(request.get("max_tokens"), int):
        return "max_tokens: Field required"
    if flavour.strict:
        for name in _GONE:
            if name in request:
                return f"{name}: Extra inputs are not permitted"
    return _fault_of_tools(messages)


def _fault_of_tools(messages: list[Any]) -> str:
    """Each tool_use must be answered in the message after it, and nothing else may be."""
    asked: set[str] = set()
    for number, message in enumerate(messages):
        blocks = _blocks(message)
        answered = {b["tool_use_id"] for b in blocks if b.get("type") == "tool_result"}
        if answered != asked:
            return f"messages.{number}: tool_use and tool_result blocks do not match"
        asked = {b["id"] for b in blocks if b.get("type") == "tool_use"}
    return "messages: the last tool_use has no tool_result" if asked else ""


def _blocks(message: Mapping[str, Any]) -> list[Json]:
    content = message.get("content")
    return content if isinstance(content, list) else [{"type": "text", "text": str(content)}]


def last_text(request: Json) -> str:
    """What was asked last, in words."""
    return " ".join(
        str(block.get("text", "")) for block in _blocks(request["messages"][-1]) if "text" in block
    )


def content_of(request: Json, scenario: Scenario, flavour: Flavour) -> tuple[list[Json], str]:
    """The blocks of the answer, and its stop_reason."""
    schema, forced = _wanted(request, flavour)
    value = scenario.json
    if scenario.echo:
        if schema is None:
            return [{"type": "text", "text": last_text(request)}], scenario.stop
        value = least(schema)
    if value is None:
        return [dict(block) for block in scenario.blocks], scenario.stop
    if forced:
        use = {
            "type": "tool_use",
            "id": f"toolu_{next(_NUMBERS)}",
            "name": forced,
            "input": value,
        }
        return [use], "tool_use"
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return [{"type": "text", "text": said}], scenario.stop


def _wanted(request: Json, flavour: Flavour) -> tuple[Json | None, str]:
    """The schema of the JSON that a request wants, and the tool that it forces."""
    choice = request.get("tool_choice") or {}
    if flavour.tool_choice and choice.get("type") == "tool":
        for tool in request.get("tools", ()):
            if tool["name"] == choice["name"]:
                return tool["input_schema"], tool["name"]
    form = (request.get("output_config") or {}).get("format") or {}
    if flavour.output_config and form.get("type") == "json_schema":
        return form["schema"], ""
    return None, ""


def least(schema: Json) -> Any:  # noqa: PLR0911 a case each
    """The least value that a schema admits."""
    if "anyOf" in schema:
        return least(schema["anyOf"][0])
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    match kind:
        case "object":
            properties = schema.get("properties", {})
            return {name: least(properties[name]) for name in schema.get("required", ())}
        case "array":
            return []
        case "integer" | "number":
            return 0
        case "boolean":
            return False
        case "null":
            return None
    return {"date-time": "1970-01-01T00:00:00Z"}.get(schema.get("format", ""), "0")


def tokens(value: Any) -> int:
    """About so many tokens are in it."""
    given = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return len(given.encode(errors="replace")) // _BYTES_OF_TOKEN + 1


class Cache:
    """The prompts that the server has seen: what a second request shares with a first is read, not written."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def usage(self, request: Json, flavour: Flavour) -> Json:
        """The input side of `usage`."""
        prefix = {key: request.get(key) for key in ("model", "tools", "system")}
        marked = json.dumps(prefix)
        whole = tokens([request.get("messages"), request.get("tools"), request.get("system")])
        found = {
            "input_tokens": whole,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
        }
        if not (flavour.caching and (request.get("cache_control") or "cache_control" in marked)):
            return found
        if request.get("cache_control"):
            marked += json.dumps(request["messages"][:-1])
        size = min(whole, tokens(marked))
        found["input_tokens"] = whole - size
        read = marked in self._seen
        self._seen.add(marked)
        found["cache_read_input_tokens" if read else "cache_creation_input_tokens"] = size
        return found


def message(request: Json, blocks: list[Json], stop: str, usage: Json) -> Json:
    """An answer that is not streamed."""
    return {
        "id": f"msg_{next(_NUMBERS)}",
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "content": blocks,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": usage,
    }


def events(request: Json, blocks: list[Json], stop: str, usage: Json) -> Iterator[tuple[str, Json]]:
    """The same as events of a stream: type and data."""
    start = message(request, [], stop, {**usage, "output_tokens": 1})
    start["stop_reason"] = None
    yield "message_start", {"message": start}
    for index, block in enumerate(blocks):
        yield "content_block_start", {"index": index, "content_block": _opening(block)}
        for delta in _deltas(block):
            yield "content_block_delta", {"index": index, "delta": delta}
        yield "content_block_stop", {"index": index}
    delta = {"stop_reason": stop, "stop_sequence": None}
    yield "message_delta", {"delta": delta, "usage": {"output_tokens": usage["output_tokens"]}}
    yield "message_stop", {}


def _opening(block: Json) -> Json:
    match block["type"]:
        case "text":
            return {**block, "text": ""}
        case "tool_use":
            return {**block, "input": {}}
        case "thinking":
            return {"type": "thinking", "thinking": "", "signature": ""}
    return block


def _deltas(block: Json) -> Iterator[Json]:
    match block["type"]:
        case "text":
            for piece in _pieces(block["text"]):
                yield {"type": "text_delta", "text": piece}
        case "tool_use":
            given = block["input"]
            sent = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
            for piece in _pieces(sent):
                yield {"type": "input_json_delta", "partial_json": piece}
        case "thinking":
            yield {"type": "thinking_delta", "thinking": block["thinking"]}
            yield {"type": "signature_delta", "signature": block["signature"]}


def _pieces(given: str) -> Iterator[str]:
    for start in range(0, len(given), _PIECE):
        yield given[start : start + _PIECE]
