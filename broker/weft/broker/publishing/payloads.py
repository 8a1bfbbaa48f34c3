"""Messages too large for Redis wait in PostgreSQL; their queue has their id only."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from weft import rpc
from weft.broker.errors import MessageTooLarge
from weft.broker.layout import PAYLOAD_ELSEWHERE, Entry
from weft.postgres import Database

_ORPHANED = timedelta(days=30)  # longer than any message is kept unfinished by default


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
        self._inline_limit = inline_limit

    def too_large(self, entry: Entry) -> bool:
        """Whether the message must go to PostgreSQL."""
        return len(entry.message) > self._inline_limit

    async def store(self, entry: Entry) -> None:
        """Puts the message into PostgreSQL and leaves its id in the entry.

        Raises:
            MessageTooLarge: there is no PostgreSQL.
        """
        if self._database is None:
            raise MessageTooLarge(
                f"The message has {len(entry.message):,} bytes; without a PostgreSQL the broker takes "
                f"at most {self._inline_limit:,}.",
                field="message.payload",
                metadata={"limit": str(self._inline_limit), "size": str(len(entry.message))},
            )
        payload_id = uuid.uuid4()
        await self._database.execute("put_payload", payload_id, entry.message, datetime.now(UTC))
        entry.message = payload_id.bytes
        entry.flags |= PAYLOAD_ELSEWHERE

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

    async def drop_orphans(self) -> None:
        """Forgets what no queue can refer to any more, such as messages whose publish failed."""
        if self._database is not None:
            await self._database.execute("drop_old_payloads", datetime.now(UTC) - _ORPHANED)
