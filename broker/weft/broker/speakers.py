"""In whose name members of a mesh with mTLS speak to the broker.

Clients and parts (people at a terminal, tools) may do all there is. An agent consumes and looks after its own queues, and
sends in its own name, or in one that is no agent's ("host:db7"). An edge, which has to do with strangers, is no part here.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from weakref import WeakKeyDictionary

from weft import rpc
from weft.mtls import SpiffeId
from weft.rpc.membership import Context, Membership, NotThisAgent

_LIKE_AGENTS = ("", "edge")


class Speakers:
    """Tells who may do what.

    Args:
        membership: who callers are.
    """

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        # A stream brings many messages, of few senders.
        self._known: WeakKeyDictionary[rpc.Call, tuple[SpiffeId, set[str]]] = WeakKeyDictionary()

    def check_queue(self, context: Context, queue: str) -> None:
        """Sees that a caller may have to do with a queue; "": with all.

        Raises:
            NotThisAgent: it is of another agent.
        """
        self._check(self._membership.who(context), queue.partition(".")[0], f"the queue {queue!r}")

    def check_sender(self, sender: str) -> None:
        """Sees that whoever makes the call being served may send in a name.

        Raises:
            NotThisAgent: it is another agent's.
        """
        call = rpc.current_call()
        if call is None or call.context is None or ":" in sender:
            return
        known = self._known.get(call)
        if known is None:
            known = self._known[call] = (self._membership.who(call.context), set())
        who, senders = known
        if sender not in senders:
            self._check(who, sender, f"the sender {sender!r}")
            senders.add(sender)

    def _check(self, who: SpiffeId, agent: str, what: str) -> None:
        if who.client or who.part not in _LIKE_AGENTS:
            return
        if not agent:
            raise NotThisAgent(f"{who} may not have to do with {what}.")
        self._membership.check_agent(who, agent)

    def guarded(self, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        """A handler whose request names a queue, for those who may have to do with it."""

        async def single(request: Any, context: Context) -> Any:
            self.check_queue(context, request.queue)
            return await answered(request, context)

        async def streaming(request: Any, context: Context) -> AsyncIterator[Any]:
            self.check_queue(context, request.queue)
            async for response in behaviour(request, context):
                yield response

        answered: Callable[[Any, Context], Awaitable[Any]] = behaviour
        return streaming if inspect.isasyncgenfunction(behaviour) else single
