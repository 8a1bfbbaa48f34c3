"""A message that a caller sent: what it is for, and how its history entry looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from weft import rpc
from weft.gateway.doors.a2a import content, protocol
from weft.gateway.doors.a2a.content import Given
from weft.gateway.doors.a2a.params import Params, renamed
from weft.gateway.doors.a2a.protocol import Json

_USER = ("ROLE_USER", 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A message."""

    task_id: str
    """Task that it continues; empty: none."""
    context_id: str
    given: Given
    skill: Any
    """The skill that it names; None: none."""
    as_message: bool
    """Whether the answer shall be a Message, not a Task."""
    accepted: list[str]
    """Media types of answers; none: any."""
    whole: Json

    def kept(self, task_id: str, context_id: str) -> bytes:
        """As it stands in the history of a task."""
        return orjson.dumps(
            self.whole | {"taskId": task_id, "contextId": context_id, "role": _USER[0]}
        )


def read(params: Params) -> Sent:
    """The message of a request.

    Raises:
        rpc.Error: it is malformed.
    """
    message = params.inner("message")
    if not message:
        raise rpc.InvalidArgument("is required", field="message")
    message.needed("messageId")
    if message.raw("role") not in _USER:
        raise rpc.InvalidArgument("must be ROLE_USER", field="message.role")
    typed = _typed(message)
    whole = _as_json_names(params.raw("message"))
    answer = typed.text("answer")
    if answer not in {"", "task", "message"}:
        raise rpc.InvalidArgument("must be task or message", field=typed.path("answer"))
    return Sent(
        task_id=message.text("taskId"),
        context_id=message.text("contextId"),
        given=content.read(whole),
        skill=typed.raw("skill"),
        as_message=answer == "message",
        accepted=params.inner("configuration").texts("acceptedOutputModes"),
        whole=whole,
    )


def _as_json_names(message: Json) -> Json:
    """A message as it is shown again: with the names that JSON gives its members."""
    message = renamed(message)
    parts = message.get("parts")
    if isinstance(parts, list) and any(
        isinstance(part, dict) and part is not renamed(part) for part in parts
    ):
        parts = [renamed(part) if isinstance(part, dict) else part for part in parts]
        return message | {"parts": parts}
    return message


def _typed(message: Params) -> Params:
    """What the message says under the extension's URI."""
    return message.inner("metadata").inner(protocol.EXTENSION)
