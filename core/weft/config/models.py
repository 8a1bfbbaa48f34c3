"""Models, where they are and what they may cost: `[endpoints.NAME]`, `[models.NAME]` and `[budgets.NAME]` of the settings file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from weft.config.credentials import check_url

Kind = Literal["claude", "ollama", "vllm", "litellm"]
Structured = Literal["", "format", "forced_tool", "prompt"]
Period = Literal["", "day", "month"]
Effort = Literal["", "low", "medium", "high", "xhigh", "max"]
Cache = Literal["off", "5m", "1h"]

SCOPES = ("call", "run", "agent", "tenant")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEndpoint:
    """An endpoint that speaks the Messages API.

    Attributes:
        name: of it.
        kind: what it is; the other fields are as is usual with those.
        url: without /v1; empty: the usual one of its kind.
        key_env: environment variable with its credential; empty: none.
        key_file: file with it; empty: none.
        key_header: header that carries it beside Authorization; empty: none.
        structured: how it is held to a schema; empty: as its kind.
        idle: seconds it may say nothing; 0: as its kind.
    """

    name: str
    kind: Kind = "claude"
    url: str = ""
    key_env: str = ""
    key_file: str = ""
    key_header: str = ""
    structured: Structured = ""
    idle: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError where something cannot be used."""
        if self.url:
            check_url(self.url)
        if self.key_env and self.key_file:
            raise ValueError("key_env and key_file name two credentials; give one")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """A model, by the name of the agent that uses it, or "default" for all others.

    Attributes:
        name: of the agent.
        model: as its endpoint calls it.
        endpoint: where it is.
        fallback: other entries that stand in for it.
        max_tokens: of an answer.
        timeout: seconds for a question.
        temperature: where the endpoint has it; below 0: its own.
        effort: where the model has it.
        cache: how long the system prompt is kept.
        retries: how often it is asked again.
    """

    name: str
    model: str
    endpoint: str = "claude"
    fallback: tuple[str, ...] = ()
    max_tokens: int = 4_096
    timeout: float = 120.0
    temperature: float = -1.0
    effort: Effort = ""
    cache: Cache = "5m"
    retries: int = 2

    def __post_init__(self) -> None:
        """Raises ValueError where something cannot be used."""
        if self.max_tokens < 1 or self.timeout <= 0 or self.retries < 0:
            raise ValueError("max_tokens, timeout and retries cannot be less than nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBudget:
    """How much may be spent on models.

    Attributes:
        name: call, run, agent or tenant: of each of them; with a colon and a name: of that one.
        tokens: 0: any number.
        usd: US dollars; 0: any.
        per: day or month, by UTC; empty: for ever, of agents and tenants a day.
    """

    name: str
    tokens: int = 0
    usd: float = 0.0
    per: Period = ""

    def __post_init__(self) -> None:
        """Raises ValueError where something cannot be used."""
        if self.name.partition(":")[0] not in SCOPES:
            raise ValueError(f"a budget is of a {', '.join(SCOPES)}, not {self.name!r}")
        if self.tokens < 0 or self.usd < 0 or not (self.tokens or self.usd):
            raise ValueError("a budget needs tokens or usd")
