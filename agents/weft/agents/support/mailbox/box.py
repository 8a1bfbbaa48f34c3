"""Mails in PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Self
from uuid import UUID

import asyncpg

from weft.postgres import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A mail from a customer, or to one. `answer`: serialized weft.support.v1.Answer."""

    mail_id: UUID
    address: str
    conversation_id: str
    outgoing: bool
    subject: str
    text: str
    answer: bytes
    ticket_id: str
    mail_time: datetime

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """A mail as it is stored."""
        return cls(**row)


class Box:
    """All mails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, mail: Mail) -> None:
        """Keeps a mail; one of the same id is kept as it was."""
        await self._database.execute(
            "put_mail",
            *(mail.mail_id, mail.address, mail.conversation_id, mail.outgoing, mail.subject),
            *(mail.text, mail.answer, mail.ticket_id, mail.mail_time),
        )

    async def first(self, conversation_id: str) -> Mail | None:
        """The mail that began a conversation; None: no mail did."""
        row = await self._database.fetchrow("first_mail", conversation_id)
        return None if row is None else Mail.of(row)

    async def mails(
        self, address: str, conversation_id: str, *, behind: tuple[datetime, UUID], limit: int
    ) -> list[Mail]:
        """Mails from and to an address, oldest first."""
        rows = await self._database.fetch("list_mails", address, conversation_id, *behind, limit)
        return [Mail.of(row) for row in rows]
