"""The ledger in PostgreSQL: for agents in many processes. One statement for each step, all accounts or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from weft.agents.llm.money.ledger import LEAST_OUTPUT, Account, Entry, Refused, Spent
from weft.agents.llm.usage import Usage
from weft.postgres import Database

SQL = "weft.agents.llm.sql"  # migrate a database by it before the first use
SCHEMA = "weft_models"

_MOST = 1_000  # rows of a look


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What an agent spent of an account on a model.

    Attributes:
        agent: the agent.
        model: the model.
        requests: how many.
        unpriced: how many of them have no known cost.
        tokens: what is set aside counts as well.
        cost: billionths of a US dollar.
    """

    agent: str
    model: str
    requests: int
    unpriced: int
    tokens: int
    cost: int


class PostgresLedger:
    """Sums that all processes with one database share.

    Args:
        database: its schema has been migrated by `SQL`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def set_aside(self, entry: Entry) -> int | Refused:
        """Sets aside what a request may cost.

        Raises:
            rpc.Unavailable: the database is away.
        """
        accounts = list(entry.accounts)
        # Each step is a transaction by itself and may run twice: it goes by the entry's id.
        row = await self._database.fetchrow(
            "set_aside",
            *(entry.id, entry.agent, entry.endpoint, entry.model),
            [each.scope for each in accounts],
            [each.name for each in accounts],
            [each.period for each in accounts],
            [each.tokens for each in accounts],
            [each.cost for each in accounts],
            *(entry.prompt, entry.prompt_cost, entry.output, entry.output_price, LEAST_OUTPUT),
            entry.priced,
        )
        assert row is not None
        if not row["granted"] and entry.output:
            account = accounts[row["account"] - 1]
            # The limit that counts, which may be narrower than that of this process.
            account = replace(account, tokens=row["token_limit"], cost=row["cost_limit"])
            return Refused(account=account, spent=await self.spent(account))
        return int(row["granted"])

    async def settle(self, entry: Entry, usage: Usage, cost: int | None) -> None:
        """Says what it did cost.

        Raises:
            rpc.Unavailable: the database is away; it may be said again.
        """
        written = usage.cache_write_5m + usage.cache_write_1h
        await self._database.fetchval(
            "settle", entry.id, usage.input, usage.cache_read, written, usage.output, cost
        )

    async def spent(self, account: Account) -> Spent:
        """What was spent of an account."""
        row = await self._database.fetchrow("account_sum", *account.key)
        parts = await self._database.fetch("account_parts", *account.key)
        return Spent(
            tokens=row["tokens"] if row else 0,
            cost=row["cost"] if row else 0,
            where=[(each["agent"], each["model"], each["tokens"], each["cost"]) for each in parts],
        )

    async def parts(self, account: Account) -> list[Part]:
        """The same by agent and model, the most tokens first, of the requests that are not forgotten."""
        rows = await self._database.fetch("account_parts", *account.key)
        return [Part(**{name: row[name] for name in Part.__slots__}) for row in rows]

    async def limit(self, account: Account) -> None:
        """Holds an account to its limits from now on, whatever the settings of those who spend say beyond them."""
        await self._database.execute("limit_account", *account.key, account.tokens, account.cost)

    async def idle_runs(self, older_than: timedelta, after: str = "") -> list[str]:
        """Names of accounts of runs that have spent nothing for so long, some of them, in order, behind a name."""
        before = datetime.now(UTC) - older_than
        rows = await self._database.fetch("idle_runs", before, after, _MOST)
        return [row["name"] for row in rows]

    async def forget_runs(self, older_than: timedelta, names: Sequence[str]) -> int:
        """Forgets accounts of runs that have spent nothing for so long; how many."""
        before = datetime.now(UTC) - older_than
        return await self._database.execute("forget_runs", before, names)

    async def forget_periods(self, older_than: timedelta) -> int:
        """Forgets sums of days and months that ended longer ago; how many."""
        before = (datetime.now(UTC) - older_than).strftime("%Y-%m-%d")
        return await self._database.execute("forget_periods", before)

    async def forget(self, older_than: timedelta) -> int:
        """Forgets single requests that are older, but for those of runs whose account is there; how many. Sums stay."""
        before, forgotten = datetime.now(UTC) - older_than, 0
        while some := await self._database.execute("forget_requests", before, _MOST):
            forgotten += some
        return forgotten
