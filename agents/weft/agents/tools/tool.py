"""A tool: something a model, or an agent's own code, may have done, with what must hold before it is."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from google.protobuf.message import Message

from weft.agents import filling

Run = Callable[[Any], Awaitable[Message]]
Audience = Literal["identity", "tenant", "everybody"]

# What functions of the large model APIs may be named.
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
TIMEOUT = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How often each identity may use a tool (GCRA).

    Raises:
        ValueError: it lets nothing through.
    """

    per_second: float
    burst: float = 1.0
    """Uses that may come at once."""

    def __post_init__(self) -> None:
        if not (self.per_second > 0 and self.burst >= 1):
            raise ValueError("a rate is more than 0 a second, and lets at least 1 use through")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """For how long results are kept, and for whom.

    Raises:
        ValueError: the time is not more than 0.
    """

    ttl: timedelta
    audience: Audience = "identity"
    """Whose equal uses get a result that was kept: by default those of the same identity with the same scopes."""

    def __post_init__(self) -> None:
        if self.ttl <= timedelta(0):
            raise ValueError("results are kept for more than 0 s, or not at all")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool.

    Attributes:
        name: 1 to 64 of A-Z, a-z, 0-9, underscore and hyphen.
        description: what it does and when to use it, for a model.
        request: the message its arguments are.
        response: the message it results in.
        run: does it; raises rpc.Error, whose message a model may be told. Whatever else it raises is told to nobody.
        scopes: what the identity of the call needs, all of it. None: "tools.NAME". Empty: anybody may use it.
        effects: whether using it changes something: it is never answered from what was kept then.
        timeout: how long it may take, less where the call's deadline comes first.
        rate: how often; None: as often as anybody likes.
        keeping: of results; None: none is kept.

    Raises:
        ValueError: something of it cannot be.
    """

    name: str
    description: str
    request: type[Message]
    response: type[Message]
    run: Run = field(repr=False)
    scopes: tuple[str, ...] | None = None
    effects: bool = True
    timeout: timedelta = TIMEOUT
    rate: Rate | None = None
    keeping: Keeping | None = None

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"{self.name[:80]!r} is no name for a tool: {NAME.pattern}")
        if not self.description:
            raise ValueError(f"{self.name}: say what it does; a model goes by nothing else")
        if isinstance(self.scopes, str):
            raise ValueError(f"{self.name}: scopes are a sequence of texts")  # noqa: TRY004 the value is wrong
        if self.timeout <= timedelta(0):
            raise ValueError(f"{self.name}: the timeout is not more than 0 s")
        if self.keeping is not None and self.effects:
            raise ValueError(f"{self.name}: it has effects, so no result of it can be kept")

    @property
    def required(self) -> tuple[str, ...]:
        """The scopes that the identity of a call needs."""
        return (f"tools.{self.name}",) if self.scopes is None else self.scopes

    @property
    def input_schema(self) -> Mapping[str, object]:
        """A JSON schema of the arguments, which are ProtoJSON."""
        return filling.schema_of(self.request.DESCRIPTOR, arguments=True).schema


def tool(
    *,
    description: str = "",
    name: str = "",
    scopes: Sequence[str] | None = None,
    effects: bool = True,
    timeout: timedelta = TIMEOUT,
    rate: Rate | None = None,
    keeping: Keeping | None = None,
) -> Callable[[Run], Tool]:
    """Makes a tool of an async function of one message that returns another; both are taken from its annotations.

        @tool(effects=False)
        async def word_count(request: CountRequest) -> CountResponse:
            \"\"\"Counts the words of a text.\"\"\"

    Args:
        description: by default the first paragraph of the function's docstring.
        name: by default the function's.
        scopes: see Tool.
        effects: see Tool.
        timeout: see Tool.
        rate: see Tool.
        keeping: see Tool.

    Raises:
        TypeError: the function is not of that form.
        ValueError: something of it cannot be.
    """

    def make(run: Run) -> Tool:
        request, response = _messages(run)
        said = description or " ".join((inspect.getdoc(run) or "").partition("\n\n")[0].split())
        return Tool(
            name=name or run.__name__,
            description=said,
            request=request,
            response=response,
            run=run,
            scopes=None if scopes is None else tuple(scopes),
            effects=effects,
            timeout=timeout,
            rate=rate,
            keeping=keeping,
        )

    return make


def _messages(run: Run) -> tuple[type[Message], type[Message]]:
    hints = typing.get_type_hints(run)
    given = [name for name in inspect.signature(run).parameters if name != "self"]
    found = [hints.get(each) for each in (*given[:1], "return")]
    if len(given) != 1 or not all(isinstance(kind, type) and _is_message(kind) for kind in found):
        raise TypeError(
            f"{run.__name__} must take one message and return one, both named by its annotations"
        )
    return found[0], found[1]  # type: ignore[return-value] # both were looked at


def _is_message(kind: type) -> bool:
    return issubclass(kind, Message)
