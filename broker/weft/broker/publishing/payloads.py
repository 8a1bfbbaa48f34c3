"""Messages too large for Redis wait in PostgreSQL; their queue has their id only.

A message is stored here, then published, then marked as kept, and only then acknowledged. What was stored and never
marked was not acknowledged: it is dropped when it is so old that nobody repeats its publish any more. So a publish that
failed leaves nothing behind, and nothing that was acknowledged is ever dropped by its age.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from weft import rpc
from weft.broker.errors import MessageTooLarge, StoreUnavailable
from weft.broker.layout import PAYLOAD_ELSEWHERE, Entry
from weft.postgres import Database

log = logging.getLogger("weft.broker")

_ABANDONED = timedelta(days=3)  # longer than two dedupe windows can be
_LOOKED_FOR = timedelta(hours=1)


class PayloadLost(rpc.DataLoss):
    """The message's content is not in PostgreSQL any more."""

    reason = "PAYLOAD_LOST"


class Payloads:
    """Large messages by reference.

    Args:
        database: where they are; None: there is none, and large messages are refused.
        inline_limit: largest message that is kept in Redis, in bytes.
    """

    def __init__(self, database: Database | None, *, inline_limit: int = 256 * 1024) -> None:
        self._database = database
        self.inline_limit = inline_limit

    def too_large(self, entry: Entry) -> bool:
        """Whether the message must go to PostgreSQL."""
        return len(entry.message) > self.inline_limit

    async def store(self, entry: Entry, *, tentative: bool = False) -> None:
        """Puts the message into PostgreSQL and leaves its id in the entry.

        Args:
            entry: whose message it is.
            tentative: it is dropped one day unless `keep` is called.

        Raises:
            MessageTooLarge: there is no PostgreSQL.
            StoreUnavailable: it is away.
        """
        if self._database is None:
            raise MessageTooLarge(
                f"The message has {len(entry.message):,} bytes; without a PostgreSQL the broker takes "
                f"at most {self.inline_limit:,}.",
                field="message.payload",
                metadata={"limit": str(self.inline_limit), "size": str(len(entry.message))},
            )
        payload_id = uuid.uuid4()
        with _as_store():
            await self._database.execute(
                "put_payload",
                *(payload_id, entry.identity, entry.message, not tentative, datetime.now(UTC)),
            )
        entry.message = payload_id.bytes
        entry.flags |= PAYLOAD_ELSEWHERE

    async def keep(self, entry: Entry) -> None:
        """Marks the message of an entry that is in its queue, now or from a publish before.

        Raises:
            StoreUnavailable: it is not marked.
        """
        if self._database is not None:
            with _as_store():
                await self._database.execute("keep_payloads", entry.identity)

    async def load(self, entry: Entry) -> bytes:
        """The message of an entry, wherever it is.

        Raises:
            PayloadLost: it is gone.
        """
        if not entry.flags & PAYLOAD_ELSEWHERE:
            return entry.message
        found = None
        if self._database is not None:
            found = await self._database.fetchval("get_payload", uuid.UUID(bytes=entry.message))
        if found is None:
            raise PayloadLost(metadata={"message": entry.identity.decode().partition("\0")[2]})
        return bytes(found)

    async def drop(self, entries: Sequence[Entry]) -> None:
        """Forgets the messages of entries that are finished."""
        ids = [
            uuid.UUID(bytes=entry.message) for entry in entries if entry.flags & PAYLOAD_ELSEWHERE
        ]
        if ids and self._database is not None:
            await self._database.execute("drop_payloads", ids)

    async def abandon(self, entry: Entry) -> None:
        """Forgets the message of an entry that is in no queue, if PostgreSQL is there to do so."""
        try:
            await self.drop([entry])
        except rpc.Error:
            log.warning("a payload that nobody needs was left in PostgreSQL", exc_info=True)

    async def drop_abandoned(self, older_than: timedelta = _ABANDONED) -> int:
        """Forgets messages that were never acknowledged; how many."""
        if self._database is None:
            return 0
        return await self._database.execute("drop_abandoned", datetime.now(UTC) - older_than)

    async def run(self) -> None:
        """Looks for abandoned ones for ever; for a task of its own."""
        while True:
            try:
                await self.drop_abandoned()
            except rpc.Error:
                log.warning("payloads were not looked through", exc_info=True)
            await asyncio.sleep(_LOOKED_FOR.total_seconds())


@contextlib.contextmanager
def _as_store() -> Iterator[None]:
    """To a publisher PostgreSQL is a part of the store."""
    try:
        yield
    except (rpc.Unavailable, rpc.DeadlineExceeded) as failed:
        raise StoreUnavailable(
            f"Large messages are kept in PostgreSQL. {failed.message} Publish it again with the same id.",
            retry_after=timedelta(milliseconds=500),
        ) from failed
