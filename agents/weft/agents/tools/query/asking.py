"""Asks a question of a database: judged, then run in a transaction that reads only, and is never committed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import asyncpg

from weft import rpc
from weft.agents.tools.query.guard import QueryRefused, check_role, judge
from weft.agents.tools.query.settings import QuerySettings
from weft.postgres import DRIVER_ERRORS

_LONGEST = 20_000  # characters of a question
_VIEW = "weft_question"
_LONGEST_SAID = 300
# What PostgreSQL says of these is of the question, in its own words and about names that it gave: a model can mend it.
_OF_THE_QUESTION = ("42", "22", "21", "0A", "54", "2200")
_SAID: Mapping[str, tuple[type[rpc.Error], str]] = {
    "25001": (QueryRefused, "Nothing may be changed."),
    "25006": (QueryRefused, "Nothing may be changed."),
    "42501": (QueryRefused, "The role of the database may not read this."),
    "55P03": (rpc.Aborted, "Somebody has locked what is asked for; try again."),
    "57014": (rpc.DeadlineExceeded, "The answer takes too long; ask for less."),
}


class QueryFailed(rpc.InvalidArgument):
    """The database cannot answer this."""

    reason = "QUERY_FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """An answer.

    Attributes:
        rows: each a JSON object.
        truncated: whether there were more.
    """

    rows: list[dict[str, Any]]
    truncated: bool


async def ask(
    pool: asyncpg.Pool[Any], settings: QuerySettings, query: Callable[[str], str], question: str
) -> Rows:
    """The answer to a question.

    Args:
        pool: of connections to the database.
        settings: what may be asked.
        query: the statements of this package by name.
        question: one SELECT.

    Raises:
        QueryRefused: it may not be asked.
        QueryFailed: it is no question, or has no answer.
        rpc.DeadlineExceeded: the answer takes too long.
        rpc.Unavailable: the database is away.
    """
    if len(question) > _LONGEST or "\0" in question:
        raise QueryFailed(f"A question is a text of at most {_LONGEST} characters.")
    deadline = rpc.Deadline.after(settings.time).min(rpc.Deadline.current())
    deadline.check()
    try:
        async with asyncio.timeout(deadline.seconds()), pool.acquire() as connection:
            check_role(await connection.fetchrow(query("role_of_connection")))
            work = _Work(connection, settings, query, deadline)
            try:
                return await work.answer(question)
            finally:
                await work.leave()
    except DRIVER_ERRORS as failed:
        raise _translated(failed) from failed


class _Work:
    """One question on one connection."""

    def __init__(
        self,
        connection: Any,
        settings: QuerySettings,
        query: Callable[[str], str],
        deadline: rpc.Deadline,
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._query = query
        self._deadline = deadline

    async def answer(self, question: str) -> Rows:
        await self._begin()
        # By itself, as a prepared statement, which is one or none. The line's end closes a comment of the question.
        made = f"create temporary view {_VIEW} as select row_to_json(asked)::text as said from (\n{question}\n) as asked"  # noqa: S608 judged before it runs
        await self._do(made)
        view = await self._connection.fetchval(f"select 'pg_temp.{_VIEW}'::regclass::oid")
        judge(self._settings, await self._connection.fetch(self._query("used_by_question"), view))
        await self._do("set transaction read only")
        return await self._read()

    async def leave(self) -> None:
        """Leaves nothing behind: no view, no setting, no lock."""
        connection = self._connection
        if connection.is_closed():
            return
        try:
            await connection.execute("rollback", timeout=2)
        except DRIVER_ERRORS:
            connection.terminate()

    async def _begin(self) -> None:
        milliseconds = max(1, int(self._deadline.seconds() * 1000))
        schemas = ", ".join(f'"{each}"' for each in self._settings.schemas)
        await self._connection.execute(
            "begin isolation level repeatable read read write;"
            f"set local search_path = {schemas};"
            f"set local statement_timeout = {milliseconds};"
            f"set local lock_timeout = {min(milliseconds, 1_000)};"
            f"set local idle_in_transaction_session_timeout = {milliseconds + 2_000};"
            "set local max_parallel_workers_per_gather = 0; set local jit = off"
        )

    async def _do(self, statement: str) -> None:
        await (await self._connection.prepare(statement)).fetch()

    async def _read(self) -> Rows:
        most = self._settings.most_bytes
        rows: list[dict[str, Any]] = []
        size = 0
        # What is too large for an answer does not even leave the database.
        asked = f"select case when octet_length(said) <= {most} then said end as said from pg_temp.{_VIEW}"  # noqa: S608 a number and a name of ours
        prepared = await self._connection.prepare(asked)
        async for row in prepared.cursor(prefetch=20):
            said = row["said"]
            if said is None and not rows:
                raise QueryFailed(f"A row is larger than {most} bytes; ask for less of it.")
            size += len(said.encode()) if said is not None else most + 1
            if len(rows) >= self._settings.rows or size > most:
                return Rows(rows=rows, truncated=True)
            rows.append(_row(said))
        return Rows(rows=rows, truncated=False)


def _row(said: str) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(said, parse_float=_number, parse_int=_number)
    return row


def _number(text: str) -> float | str:
    """A number, or its digits where a double, which JSON values of protobuf are, is another one."""
    number = float(text)
    return number if Decimal(repr(number)) == Decimal(text) else text


def _translated(failed: Exception) -> rpc.Error:
    if isinstance(failed, TimeoutError):
        return rpc.DeadlineExceeded("The database did not answer in time.")
    if not isinstance(failed, asyncpg.PostgresError):
        return rpc.Unavailable("The database cannot be reached now.", reason="DATABASE_UNAVAILABLE")
    state = failed.sqlstate or ""
    if state.startswith(_OF_THE_QUESTION) and state not in _SAID:
        said = str(failed).partition("\n")[0][:_LONGEST_SAID]
        return QueryFailed(f"The database cannot answer this: {said}.")
    kind, text = _SAID.get(state, (rpc.Unavailable, "The database cannot answer now."))
    return kind(text)
