"""The use of a tool that this task works for: its idempotency key, and what it used in turn."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import uuid
from collections.abc import Iterator
from contextvars import ContextVar
from urllib.parse import quote
from weakref import WeakKeyDictionary

from google.protobuf.message import Message

from weft import rpc
from weft.agents.messaging.served import message_of
from weft.agents.tools.failures import NestedTooDeep
from weft.rpc.subjects import subject_of

KEY = "idempotency-key"

_DEEPEST = 8
_CURRENT: ContextVar[Using | None] = ContextVar("weft_tool_use", default=None)


class Counted:
    """Equal things that are done one after the other: the second is told from the first, and from nothing else."""

    def __init__(self) -> None:
        self._count: collections.Counter[str] = collections.Counter()

    def key(self, cause: str, tool: str, request: Message) -> str:
        """The idempotency key of a use: the same when its cause comes again, as a message that is delivered twice does.

        Args:
            cause: what it is done for; empty: nothing that could come again.
            tool: its name.
            request: its arguments.
        """
        if not cause:
            return uuid.uuid4().hex
        digest = hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
        what = f"{tool}/{digest}"
        self._count[what] += 1
        return hashlib.sha256(f"{cause}/{what}/{self._count[what]}".encode()).hexdigest()[:32]


_OWN: WeakKeyDictionary[rpc.Call, Counted] = WeakKeyDictionary()


class Using:
    """A use of a tool, for the tool itself.

    Attributes:
        tool: its name.
        key: the idempotency key for what it does: of further ones for one use, make further ones of it.
        counted: the uses within it.
        needs: scopes of the tools that were used for it so far, its own included.
        outer: what it is done for; None: no tool.
        depth: how many uses there are from the first to this one.

    Raises:
        NestedTooDeep: there are too many.
    """

    def __init__(self, tool: str, key: str, outer: Using | None) -> None:
        self.tool = tool
        self.key = key
        self.counted = Counted()
        self.needs: set[str] = set()
        self.outer = outer
        self.depth: int = 1 if outer is None else outer.depth + 1
        if self.depth > _DEEPEST:
            raise NestedTooDeep

    def needed(self, scopes: tuple[str, ...] | frozenset[str]) -> None:
        """Scopes were needed, for this and for all that it is done for."""
        each: Using | None = self
        while each is not None:
            each.needs.update(scopes)
            each = each.outer

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Makes it the current use of this task, and of those that it starts, within the block."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)


def current_use() -> Using | None:
    """The use that this task works for; None: of none."""
    return _CURRENT.get()


def own_uses(call: rpc.Call | None) -> tuple[Counted, str]:
    """What an agent's own code uses while it serves a call, apart from what a model does, and what that is done for."""
    whole = done_for(call)
    if call is None or not whole:
        return Counted(), ""
    return _OWN.setdefault(call, Counted()), f"own {whole}"


def done_for(call: rpc.Call | None) -> str:
    """What a call's uses are done for: a cause belongs to its caller. Empty: nothing that could come again."""
    cause = cause_of(call)
    return f"{subject_of(call.identity)} {cause}" if call is not None and cause else ""


def cause_of(call: rpc.Call | None) -> str:
    """What makes a call come again as the same: the message that it is, or its idempotency key; empty: nothing."""
    if call is None:
        return ""
    message = message_of(call)
    if message is not None:
        return "/".join(quote(part, safe="") for part in message)
    key = call.first(KEY)
    return key if isinstance(key, str) else ""
