"""What the server does with a request: an answer, and what goes wrong with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Fault = Literal["", "stall", "drop", "end", "error", "broken"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One answer.

    Attributes:
        blocks: content of the message, as the Messages API has it. In a block of type tool_use `input` may be a string,
            which is sent as it is, broken or not.
        json: a value to answer with where the request wants JSON, as text or by a tool that it forces.
        stop: stop_reason.
        usage: fields of `usage` that are not to be counted.
        status: of HTTP; anything but 200 is an error of type `error`.
        headers: of the answer.
        error: type of the error, of the whole answer or in the stream.
        message: its text.
        fault: what goes wrong in the stream: it says nothing more (stall), the connection is cut (drop), it ends as if
            all was well (end), an error event comes, an event is no JSON (broken).
        after: how many events come before it; -1: it goes wrong before the headers of the answer.
        pause: seconds before each event.
        event_lines: whether events have their `event:` line.
        echo: whether to say back what was asked.
    """

    blocks: tuple[Mapping[str, Any], ...] = ()
    json: Any = None
    stop: str = "end_turn"
    usage: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    message: str = ""
    fault: Fault = ""
    after: int = 0
    pause: float = 0.0
    event_lines: bool = True
    echo: bool = False

    def with_usage(self, **usage: int) -> Scenario:
        """The same with these token counts."""
        return replace(self, usage={**self.usage, **usage})


def text(said: str, *, pause: float = 0.0) -> Scenario:
    """Says something."""
    return Scenario(blocks=({"type": "text", "text": said},), pause=pause)


def fills(value: Any) -> Scenario:
    """Answers with a JSON value, in the way that the request wants it."""
    return Scenario(json=value)


def tool(name: str, arguments: Mapping[str, Any] | str, *, said: str = "") -> Scenario:
    """Calls a tool; arguments that are a string are sent as they are."""
    return tools((name, arguments), said=said)


def tools(*calls: tuple[str, Mapping[str, Any] | str], said: str = "") -> Scenario:
    """Calls several tools at once."""
    blocks: list[Mapping[str, Any]] = [{"type": "text", "text": said}] if said else []
    blocks += [
        {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": arguments}
        for number, (name, arguments) in enumerate(calls)
    ]
    return Scenario(blocks=tuple(blocks), stop="tool_use")


def failure(
    status: int,
    error: str,
    message: str = "it failed",
    headers: Mapping[str, str] | None = None,
) -> Scenario:
    """An error in place of an answer."""
    return Scenario(status=status, error=error, message=message, headers=headers or {})


def rate_limited(retry_after: float | None = None) -> Scenario:
    """429, with the seconds to wait."""
    headers = {} if retry_after is None else {"retry-after": f"{retry_after:g}"}
    return failure(429, "rate_limit_error", "too many requests", headers)


def overloaded() -> Scenario:
    """529."""
    return failure(529, "overloaded_error", "Overloaded")


def stalls(said: str = "so far", *, after: int = -1) -> Scenario:
    """Says nothing more: from the start, or after some events of an answer."""
    return replace(text(said), fault="stall", after=after)


def drops(said: str = "so far", *, after: int = 3) -> Scenario:
    """Cuts the connection."""
    return replace(text(said), fault="drop", after=after)


def ends(said: str = "so far", *, after: int = 3) -> Scenario:
    """Ends the stream cleanly though the answer has not ended."""
    return replace(text(said), fault="end", after=after)


def errs(said: str = "so far", *, after: int = 3, error: str = "overloaded_error") -> Scenario:
    """Sends an error event in the stream."""
    return replace(text(said), fault="error", after=after, error=error, message="Overloaded")


def broken(said: str = "so far", *, after: int = 3) -> Scenario:
    """Sends an event that is no JSON."""
    return replace(text(said), fault="broken", after=after)


def without_event_lines(said: str) -> Scenario:
    """Sends events with no `event:` line, as bad servers do."""
    return replace(text(said), event_lines=False)


def refuses(said: str = "") -> Scenario:
    """Refuses."""
    return replace(text(said), stop="refusal")


def cut_off(said: str) -> Scenario:
    """Ends at max_tokens."""
    return replace(text(said), stop="max_tokens")


def echo() -> Scenario:
    """Says back what was asked; the least value of its schema where JSON is wanted."""
    return Scenario(echo=True)


# A request of a model of such a name is answered so, with no test to say it: for whoever tries things out by hand.
BY_MODEL: Mapping[str, Scenario] = {
    "echo": echo(),
    "overloaded": overloaded(),
    "rate-limited": rate_limited(30),
    "stalls": stalls(),
    "stalls-midway": stalls(after=3),
    "drops": drops(),
    "ends": ends(),
    "errs": errs(),
    "broken": broken(),
    "no-event-lines": without_event_lines("hello"),
    "refuses": refuses("I cannot"),
    "cut-off": cut_off("It was a dark and"),
}


def read(given: Mapping[str, Any]) -> Scenario:
    """A scenario as a file has it: the fields of `Scenario`, or `text`.

    Raises:
        ValueError: there is no such field.
    """
    fields = dict(given)
    if "text" in fields:
        fields["blocks"] = ({"type": "text", "text": str(fields.pop("text"))},)
    if "blocks" in fields:
        fields["blocks"] = tuple(fields["blocks"])
    try:
        return Scenario(**fields)
    except TypeError as wrong:
        raise ValueError(f"{json.dumps(given)[:200]}: {wrong}") from None
