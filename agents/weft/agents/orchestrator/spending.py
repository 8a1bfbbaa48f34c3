"""What runs spend on models: the ledger that agents keep is asked, and told what a run may spend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta

from weft import rpc
from weft.agents.llm.errors import BudgetSpent
from weft.agents.llm.money.ledger import Account, run_name, run_of
from weft.agents.llm.money.postgres import SCHEMA, SQL, PostgresLedger
from weft.agents.llm.prices import NANO
from weft.agents.orchestrator.engine.model import StoredRun
from weft.postgres import Database
from weft.v1.orchestrator_pb2 import Budget, Spending
from weft.v1.workflow_pb2 import StepFailure

_MOST_USD = 9e9  # of which the billionths fit 64 bits
_CONNECTIONS = 2
_REQUESTS = timedelta(days=31)  # single ones are kept for a month's budget at least
_PERIODS = timedelta(days=365)


async def ledger_of(url: str) -> Database:
    """The schema of the ledger in a PostgreSQL database, brought up to date. Close it by `close()`."""
    return await Database.opened(url, SCHEMA, SQL, pool_size=_CONNECTIONS)


class Purses:
    """What runs spend. Every method raises rpc.Unavailable where the database is away.

    Args:
        ledger: the ledger's database.
        runs: with the queries of weft.agents.orchestrator.sql.
    """

    def __init__(self, ledger: Database, runs: Database) -> None:
        self._ledger = PostgresLedger(ledger)
        self._runs = runs

    async def limit(self, run: StoredRun) -> None:
        """Has the ledger hold a run to its budget, where it has one: before its first step, and again without harm."""
        if run.budget is None:
            return
        budget = Budget.FromString(run.budget)
        cost = round(budget.usd * NANO) or None
        name = run_name(run.tenant, run.id)
        await self._ledger.limit(
            Account(scope="run", name=name, tokens=budget.tokens or None, cost=cost)
        )

    async def spending(self, run: StoredRun) -> Spending | None:
        """What a run spent, with all that are steps of it; None for those."""
        if run.payer:
            return None
        account = Account(scope="run", name=run_name(run.tenant, run.id))
        spent, parts = await self._ledger.spent(account), await self._ledger.parts(account)
        shown = Spending(tokens=spent.tokens, usd=spent.cost / NANO)
        for part in parts:
            shown.parts.add(
                agent=part.agent,
                model=part.model,
                requests=part.requests,
                unpriced=part.unpriced,
                tokens=part.tokens,
                usd=part.cost / NANO,
            )
        return shown

    async def forget(self, keep: timedelta | None) -> int:
        """Forgets what is old, and says how many accounts: of runs that are deleted, and periods that ended a year ago.

        Args:
            keep: how long runs are kept; None: for ever.
        """
        forgotten = await self._ledger.forget_periods(_PERIODS)
        if keep is None:
            return forgotten
        last = ""
        while idle := await self._ledger.idle_runs(keep, last):
            there = await self._stored(idle)
            gone = [name for name in idle if name not in there]
            forgotten += await self._ledger.forget_runs(keep, gone)
            last = idle[-1]
        await self._ledger.forget(max(keep, _REQUESTS))
        return forgotten

    async def _stored(self, names: Sequence[str]) -> set[str]:
        tenants, ids = zip(*(run_of(name) for name in names), strict=True)
        rows = await self._runs.fetch("stored_runs", list(tenants), list(ids))
        return {run_name(row["tenant"], row["id"]) for row in rows}


def broke(run: StoredRun, failure: StepFailure) -> bool:
    """Whether a step failed since the run has spent what it may: no other step of it could spend any more."""
    told = failure.metadata
    return (
        failure.reason == BudgetSpent.reason
        and told.get("scope") == "run"
        and told.get("name") == run_name(run.tenant, run.payer or run.id)
    )


def checked(budget: Budget, field: str) -> Budget:
    """A budget that a caller gives.

    Raises:
        InvalidArgument: it is none.
    """
    if budget.tokens < 0:
        raise rpc.InvalidArgument("must not be negative", field=f"{field}.tokens")
    if not (math.isfinite(budget.usd) and 0 <= budget.usd <= _MOST_USD):
        raise rpc.InvalidArgument(f"must be 0 to {_MOST_USD:.0f}", field=f"{field}.usd")
    if not (budget.tokens or round(budget.usd * NANO)):
        raise rpc.InvalidArgument("needs tokens or usd", field=field)
    return budget
