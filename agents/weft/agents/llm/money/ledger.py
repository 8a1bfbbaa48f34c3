"""The ledger: sums of what was spent, by run, agent and tenant, and what is set aside for requests that run.

A request sets aside the most it can cost before it is made, and says afterwards what it did cost. What is set aside
counts as spent, so that many requests at once, in many processes, do not spend what is there only once; and a
process that dies leaves it set aside: nobody knows what its endpoint will bill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote, unquote

from weft.agents.llm.usage import Usage

LEAST_OUTPUT = 16
"""Tokens of an answer for which a request is still worth while."""

_MOST = 100_000  # sums in memory: each run has one


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whose spending is counted together, and how much it may be.

    Attributes:
        scope: run, agent or tenant.
        name: of it.
        period: such as 2026-11-21 or 2026-11; empty: for ever.
        tokens: the limit; None: none.
        cost: same, in billionths of a US dollar.
    """

    scope: str
    name: str
    period: str = ""
    tokens: int | None = None
    cost: int | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from others."""
        return self.scope, self.name, self.period


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A request.

    Attributes:
        id: unique.
        accounts: where it counts.
        prompt: most tokens it is thought to be asked with.
        prompt_cost: what they may cost; 0 where no price is known.
        output: tokens its answer may have.
        output_price: of one of them.
        priced: whether its price is known; if it is not, it is refused where there is a limit in money.
        agent: that makes it.
        endpoint: that gets it.
        model: same.
    """

    id: str
    accounts: Sequence[Account]
    prompt: int
    prompt_cost: int
    output: int
    output_price: int
    priced: bool = True
    agent: str = ""
    endpoint: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What was spent of an account.

    Attributes:
        tokens: what is set aside counts as well.
        cost: billionths of a US dollar.
        where: the same by agent and model, the most first.
    """

    tokens: int
    cost: int
    where: Sequence[tuple[str, str, int, int]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """An account has too little left."""

    account: Account
    spent: Spent


def run_name(tenant: str, run: str) -> str:
    """The name of a run's account: runs of two tenants may be called alike."""
    return f"{quote(tenant, safe='')}/{run}"


def run_of(name: str) -> tuple[str, str]:
    """The tenant and the run of an account's name."""
    tenant, _, run = name.partition("/")
    return unquote(tenant), run


class Ledger(Protocol):
    """Where sums are kept."""

    async def set_aside(self, entry: Entry) -> int | Refused:
        """Sets aside what a request may cost; how many tokens its answer may have, at least `LEAST_OUTPUT`.

        Once for each entry until it is settled: a second time changes nothing and gives the same.
        """
        ...

    async def settle(self, entry: Entry, usage: Usage, cost: int | None) -> None:
        """Says what it did cost. Once for each entry: a second time changes nothing."""
        ...

    async def spent(self, account: Account) -> Spent:
        """What was spent of an account."""
        ...


def granted_of(account: Account, tokens: int, cost: int, entry: Entry) -> int:
    """Tokens that an answer may have, for the sake of one account of which so much is spent."""
    granted = entry.output
    if account.tokens is not None:
        granted = min(granted, account.tokens - tokens - entry.prompt)
    if account.cost is not None:
        if not entry.priced:
            return 0
        left = account.cost - cost - entry.prompt_cost
        if left < 0:
            return 0
        if entry.output_price:
            granted = min(granted, left // entry.output_price)
    return granted


@dataclass(slots=True)
class _Sum:
    tokens: int = 0
    cost: int = 0
    where: dict[tuple[str, str], list[int]] = field(default_factory=dict)


class MemoryLedger:
    """Sums of this process alone; those that were used longest ago are forgotten where there are too many."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str, str], _Sum] = {}  # last what was used last
        self._open: dict[str, int] = {}  # what requests that run were granted

    async def set_aside(self, entry: Entry) -> int | Refused:
        """Sets aside what a request may cost."""
        if entry.id in self._open:
            return self._open[entry.id]
        granted = entry.output
        for account in entry.accounts:
            known = self._sum(account)
            granted = min(granted, granted_of(account, known.tokens, known.cost, entry))
            if granted < min(LEAST_OUTPUT, entry.output):
                return Refused(account=account, spent=await self.spent(account))
        self._add(entry, entry.prompt + granted, entry.prompt_cost + granted * entry.output_price)
        self._open[entry.id] = granted
        return granted

    async def settle(self, entry: Entry, usage: Usage, cost: int | None) -> None:
        """Says what it did cost."""
        granted = self._open.pop(entry.id, None)
        if granted is None:
            return
        aside = entry.prompt_cost + granted * entry.output_price
        self._add(entry, usage.tokens - entry.prompt - granted, (cost or 0) - aside)

    async def spent(self, account: Account) -> Spent:
        """What was spent of an account."""
        known = self._sum(account)
        where = [(agent, model, part[0], part[1]) for (agent, model), part in known.where.items()]
        where.sort(key=lambda each: -each[2])
        return Spent(tokens=known.tokens, cost=known.cost, where=where)

    def _add(self, entry: Entry, tokens: int, cost: int) -> None:
        for account in entry.accounts:
            known = self._sum(account)
            known.tokens += tokens
            known.cost += cost
            part = known.where.setdefault((entry.agent, entry.model), [0, 0])
            part[0] += tokens
            part[1] += cost

    def _sum(self, account: Account) -> _Sum:
        found = self._sums[account.key] = self._sums.pop(account.key, _Sum())
        if len(self._sums) > _MOST:
            del self._sums[next(iter(self._sums))]
        return found
