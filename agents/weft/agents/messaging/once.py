"""Effectively once: a message may be delivered twice, its effects in PostgreSQL happen once.

The message's identity (queue, sender and id) is written in the transaction of its effects, with what was answered: both are
there or neither. A second delivery finds it and gets the first answer ("idempotent receiver", Hohpe and Woolf, Enterprise
Integration Patterns). Copies of a message in other queues, of a broadcast or a topic, are other work.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from urllib.parse import quote

from google.protobuf.message import Message

from weft import rpc
from weft.agents.messaging.served import message_of
from weft.postgres import Database, Transaction

SQL = "weft.agents.messaging.sql"  # migrate a database by it before the first use

ResultT = TypeVar("ResultT", bound=Message)


async def once(
    database: Database,
    result: type[ResultT],
    work: Callable[[Transaction], Awaitable[ResultT]],
) -> ResultT:
    """Does the work of the message being handled in a transaction, or answers as it was answered before.

    For skills, and for handlers of topics that a host runs (with `Empty` as what they answer).

        async def Charge(self, request, context):
            return await messaging.once(self._database, ChargeResponse, functools.partial(self._charge, request))

    A plain call has no identity: its work is done each time.

    Args:
        database: where the effects are; its schema has been migrated by `SQL`.
        result: what the work answers.
        work: makes its changes in the transaction that it is given, and nowhere else.

    Raises:
        rpc.Error: what `work` raised, with nothing done; or the database is away.
    """
    identity = _identity()
    async with database.transaction() as transaction:
        if not identity:
            return await work(transaction)
        if await transaction.fetchval("begin_handling", identity) is None:
            return result.FromString(await transaction.fetchval("handled_result", identity))
        answer = await work(transaction)
        await transaction.execute("end_handling", identity, answer.SerializeToString())
        return answer


async def forget(database: Database, older_than: timedelta) -> int:
    """Forgets what was handled longer ago; how many messages. Keep them longer than any message is tried."""
    return await database.execute("forget_handled", datetime.now(UTC) - older_than)


def _identity() -> str:
    """Of the message being handled; empty: it is a plain call."""
    call = rpc.current_call()
    named = message_of(call) if call is not None else None
    # Each quoted: a "/" within one is told from one between two.
    return "/".join(quote(name, safe="") for name in named) if named else ""
