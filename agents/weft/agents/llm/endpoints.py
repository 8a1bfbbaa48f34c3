"""Where models are, and what each endpoint knows of the Messages API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

Structured = Literal["format", "forced_tool", "prompt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An endpoint that speaks the Messages API.

    Attributes:
        name: in logs, spans and circuit breakers.
        url: without /v1.
        key: credential; empty: none is sent.
        key_header: that carries it beside `Authorization: Bearer`; empty: that alone.
        structured: how it is held to a schema: output_config.format, a tool that must be called, or words.
        tool_choice: whether tool_choice means anything to it.
        temperature: whether it takes a temperature. The API of Anthropic has none since 2026-10-21.
        caching: whether cache_control means anything to it.
        free: whether its tokens cost nothing.
        connect: how long connecting may take.
        idle: how long it may say nothing.
    """

    name: str
    url: str
    key: str = ""
    key_header: str = ""
    structured: Structured = "format"
    tool_choice: bool = True
    temperature: bool = False
    caching: bool = False
    free: bool = False
    connect: timedelta = timedelta(seconds=5)
    idle: timedelta = timedelta(seconds=60)

    def __repr__(self) -> str:
        return f"Endpoint({self.name}, {self.url})"


# docs.litellm.ai/docs/anthropic_unified; ollama docs/api/anthropic-compatibility.mdx;
# vllm/entrypoints/anthropic/protocol.py
PRESETS: Mapping[str, Endpoint] = {
    "claude": Endpoint(name="claude", url="https://api.anthropic.com", caching=True),
    "ollama": Endpoint(
        name="ollama",
        url="http://127.0.0.1:11434",
        structured="prompt",
        tool_choice=False,
        temperature=True,
        free=True,
        idle=timedelta(minutes=5),
    ),
    "vllm": Endpoint(
        name="vllm",
        url="http://127.0.0.1:8000",
        temperature=True,
        free=True,
        idle=timedelta(minutes=2),
    ),
    "litellm": Endpoint(
        name="litellm",
        url="http://127.0.0.1:4000",
        structured="forced_tool",
        temperature=True,
        caching=True,
    ),
}


def preset(kind: str, **further: object) -> Endpoint:
    """An endpoint of a kind (claude, ollama, vllm, litellm), with what is different about it.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in PRESETS:
        raise ValueError(f"{kind!r} is no kind of endpoint: {', '.join(PRESETS)}")
    return replace(PRESETS[kind], **further)  # type: ignore[arg-type]
