"""Events of a stream, as what was heard of an answer so far."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from weft.agents.llm.errors import AnswerMalformed, StreamBroken
from weft.agents.llm.replies import Heard, ToolUse
from weft.agents.llm.usage import Usage

_BYTES_OF_TOKEN = 4
_KEPT_BLOCKS = frozenset({"text", "tool_use", "thinking", "redacted_thinking"})


class Hearing:
    """Takes the events of one stream in order.

    Args:
        heard: where it is kept, for whoever has to know how far it got.
        where: metadata of errors.
    """

    def __init__(self, heard: Heard, where: Mapping[str, str]) -> None:
        self._heard = heard
        self._where = where
        self._open: dict[int, dict[str, Any]] = {}
        self._sent: dict[int, list[str]] = {}  # what was written of each block
        self._events = 0
        self._over = False

    def hear(self, event: Any) -> str:
        """Takes an event; the text that came by it."""
        self._events += 1
        match event.type:
            case "message_start":
                self._heard.model = str(event.message.model)
                self._count(event.message.usage)
            case "content_block_start":
                block = event.content_block.model_dump(exclude_none=True)
                text: str = block.get("text", "")
                self._open[event.index], self._sent[event.index] = block, [text]
                return self._said(text)
            case "content_block_delta":
                return self._delta(event.index, event.delta)
            case "content_block_stop":
                self._close(event.index)
            case "message_delta":
                self._heard.stop = event.delta.stop_reason or self._heard.stop
                self._count(event.usage)
            case "message_stop":
                self._over = True
        return ""

    def end(self) -> None:
        """The stream has ended: was that the whole answer?

        Raises:
            AnswerMalformed: nothing came that is an event.
            StreamBroken: it was not: the SDK takes an end of the stream for an end of the answer.
        """
        if not self._events:
            told = "The endpoint sent no event that can be read."
            raise AnswerMalformed(told, metadata=self._where)
        if not self._over or not self._heard.stop or self._open:
            raise StreamBroken(metadata=self._where)

    def leave(self) -> None:
        """Nothing more will be heard: what was written and not counted is estimated."""
        heard = self._heard
        if self._events and not heard.stop:
            sent = itertools.chain.from_iterable(self._sent.values())
            size = sum(len(each.encode(errors="replace")) for each in sent)
            written = max(heard.usage.output, size // _BYTES_OF_TOKEN)
            heard.usage = replace(heard.usage, output=written, estimated=True)

    def _delta(self, index: int, delta: Any) -> str:
        block, sent = self._open[index], self._sent[index]
        match delta.type:
            case "text_delta":
                sent.append(delta.text)
                return self._said(delta.text)
            case "input_json_delta":
                sent.append(delta.partial_json)
            case "thinking_delta":
                sent.append(delta.thinking)
            case "signature_delta":
                block["signature"] = delta.signature
        return ""

    def _said(self, text: str) -> str:
        if text:
            self._heard.text.append(text)
        return text

    def _close(self, index: int) -> None:
        block, sent = self._open.pop(index), "".join(self._sent[index])
        match block["type"]:
            case "tool_use":
                use = _tool_use(block, sent)
                block["input"] = use.arguments
                self._heard.uses.append(use)
            case "text":
                block["text"] = sent
            case "thinking":
                block["thinking"] = block.get("thinking", "") + sent
        if block["type"] in _KEPT_BLOCKS and block.get("text") != "":
            self._heard.blocks.append(block)

    def _count(self, told: Any) -> None:
        """Counts in a stream are of the whole answer so far; what an event does not tell stays as it was."""
        if told is None:
            return
        known = self._heard.usage
        written = _number(told, "cache_creation_input_tokens")
        by_life = getattr(told, "cache_creation", None)
        hour = _number(by_life, "ephemeral_1h_input_tokens") or 0
        self._heard.usage = Usage(
            input=_either(_number(told, "input_tokens"), known.input),
            cache_read=_either(_number(told, "cache_read_input_tokens"), known.cache_read),
            cache_write_5m=known.cache_write_5m if written is None else max(0, written - hour),
            cache_write_1h=hour or known.cache_write_1h,
            output=_either(_number(told, "output_tokens"), known.output),
        )


def _tool_use(block: Mapping[str, Any], sent: str) -> ToolUse:
    fault = ""
    arguments: Any = block.get("input") or {}
    if sent:
        try:
            arguments = json.loads(sent)
        except (ValueError, RecursionError) as wrong:
            arguments, fault = {}, f"the arguments are no JSON: {wrong}"[:300]
    if not isinstance(arguments, dict):
        arguments, fault = {}, "the arguments must be a JSON object"
    return ToolUse(id=str(block["id"]), name=str(block["name"]), arguments=arguments, fault=fault)


def _number(told: Any, name: str) -> int | None:
    found = getattr(told, name, None)
    return found if isinstance(found, int) and found >= 0 else None


def _either(told: int | None, known: int) -> int:
    # Some endpoints tell zeros at the start and the truth at the end, others the truth at the start alone.
    return known if told is None else max(told, known)
