"""A consumer within the broker."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, Sequence

from weft import rpc
from weft.broker.delivery.leases import Lease
from weft.broker.delivery.post import Message, Post
from weft.broker.layout import Entry

log = logging.getLogger("weft.broker")

_LATER = 1_000  # ms

Handler = Callable[[Entry], Awaitable[None]]


class InternalConsumer:
    """Gives messages to a function.

    Args:
        post: the queue it consumes.
        handler: gets the entry; an error of it is an attempt that failed, but rpc.Unavailable: that is not the
            message's fault, and it is tried again a little later.
        credit: how many it handles at a time.
    """

    def __init__(self, post: Post, handler: Handler, credit: int) -> None:
        self.consumer = "broker"
        self.session = ""
        self._post = post
        self._settlements = post.settlements
        self._leases = post.settlements.leases
        self._handler = handler
        self._credit = credit
        self._tasks: set[asyncio.Task[None]] = set()
        self._context = contextvars.Context()

    @property
    def room(self) -> int:
        """How many messages it takes now."""
        return self._credit - len(self._tasks)

    def deliver(self, messages: Sequence[Message]) -> None:
        """Gives it some."""
        loop = asyncio.get_running_loop()
        for lease, message, published in messages:
            lease.sent = True
            entry = Entry(
                message, lease.identity, lease.key, published=published, attempt=lease.attempt
            )
            task = loop.create_task(self._handle(lease, entry), context=self._context)
            self._tasks.add(task)
            task.add_done_callback(self._finished)

    async def close(self) -> None:
        """Waits for what is in hand."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._post.wake()

    async def _handle(self, lease: Lease, entry: Entry) -> None:
        try:
            await self._handler(entry)
        except rpc.Unavailable:
            if self._leases.end(lease.lease_id) is not None:
                self._settlements.unused(lease, delay_ms=_LATER)
        except rpc.Error as failed:
            self._fail(lease, f"{failed.reason}: {failed.message}")
        except asyncio.CancelledError:
            if self._leases.end(lease.lease_id) is not None:
                self._settlements.unused(lease)
            raise
        except Exception as failed:
            log.exception("a message could not be handled", extra={"queue": self._post.queue.name})
            self._fail(lease, type(failed).__name__)
        else:
            if self._leases.end(lease.lease_id) is not None:
                self._settlements.ack((lease,), consumer=self.consumer)

    def _fail(self, lease: Lease, error: str) -> None:
        if self._leases.end(lease.lease_id) is not None:
            self._settlements.failed(lease, reason="MAX_ATTEMPTS", error=error)
