"""Budgets: who pays for a request, how much is left, and what is told when it is too little."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal
from weakref import WeakKeyDictionary

from weft import rpc
from weft.agents.llm.errors import BudgetSpent, ModelRejected
from weft.agents.llm.money import meter
from weft.agents.llm.money.ledger import (
    Account,
    Entry,
    Ledger,
    MemoryLedger,
    Refused,
    Spent,
    run_name,
)
from weft.agents.llm.prices import NANO, Price
from weft.agents.llm.replies import Request
from weft.agents.llm.usage import Usage

log = logging.getLogger("weft.agents.llm")

Scope = Literal["call", "run", "agent", "tenant"]
_BYTES_OF_TOKEN = 3  # of English text it is about 4, of other text less
_OVERHEAD = 16  # tokens that a request has of its own
_SETTLING = 10.0  # seconds
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How much may be spent.

    Attributes:
        tokens: None: any number.
        usd: US dollars; None: any.
        per: the span after which counting begins anew, by UTC; empty: never.
    """

    tokens: int | None = None
    usd: float | None = None
    per: Literal["", "day", "month"] = ""

    def __post_init__(self) -> None:
        """Raises ValueError where it is no limit."""
        if (self.tokens or 0) < 0 or (self.usd or 0) < 0:
            raise ValueError("a budget cannot be less than nothing")
        if self.per not in {"", "day", "month"}:
            raise ValueError(f"a budget is per day or per month, not {self.per!r}")


class Unpriced(ModelRejected):
    """What this model costs is not known, and there is a budget in money."""

    reason = "MODEL_UNPRICED"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Own:
    """What is set aside of the budget of the call that is served."""

    ledger: MemoryLedger
    entry: Entry

    async def settle(self, usage: Usage, cost: int | None) -> None:
        """Says what it did cost."""
        await self.ledger.settle(self.entry, usage, cost)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A request that may be made.

    Attributes:
        entry: in the ledger.
        output: tokens its answer may have.
        price: None: not known.
        own: of the call that is served; None: it has no budget.
        call: that is served.
    """

    entry: Entry
    output: int
    price: Price | None
    own: _Own | None = None
    call: rpc.Call | None = None


class Books:
    """Opens an entry for each request and closes it.

    Args:
        ledger: where sums are kept; by default in this process alone.
        limits: by scope, such as "tenant", or by scope and name, such as "tenant:acme", which goes first.
        now: for periods.
    """

    def __init__(
        self,
        ledger: Ledger | None = None,
        limits: Mapping[str, Limit] | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.ledger: Ledger = ledger or MemoryLedger()
        self._limits = dict(limits or {})
        self._now = now
        self._calls: WeakKeyDictionary[rpc.Call, MemoryLedger] = WeakKeyDictionary()

    def account(self, scope: Scope, name: str) -> Account:
        """The account of something, with its limit."""
        limit = self._limits.get(f"{scope}:{name}") or self._limits.get(scope) or Limit()
        per = limit.per or ("day" if scope in {"agent", "tenant"} else "")
        form = {"day": "%Y-%m-%d", "month": "%Y-%m"}.get(per, "")
        cost = None if limit.usd is None else round(limit.usd * NANO)
        return Account(
            scope=scope,
            name=name,
            period=self._now().strftime(form),
            tokens=limit.tokens,
            cost=cost,
        )

    async def open(
        self, agent: str, endpoint: str, model: str, request: Request, price: Price | None
    ) -> Opened:
        """Leave to make a request.

        Raises:
            BudgetSpent: a budget has too little left.
            Unpriced: there is a budget in money, and no price.
            rpc.Unavailable: the ledger cannot be reached.
        """
        prompt = _tokens_of(request)
        prompt_cost, output_price = price.at_most(prompt) if price else (0, 0)
        call = rpc.current_call()
        agent = (call.agent if call is not None else "") or agent
        accounts = self._accounts(call, agent)
        entry = Entry(
            id=uuid.uuid4().hex,
            accounts=accounts,
            prompt=prompt,
            prompt_cost=prompt_cost,
            output=request.max_tokens,
            output_price=output_price,
            priced=price is not None,
            agent=agent,
            endpoint=endpoint,
            model=model,
        )
        entry, own = await self._aside_for_call(call, entry)
        given: int | Refused | None = None
        try:
            given = await self.ledger.set_aside(entry)
        finally:
            if own is not None and not isinstance(given, int):
                await own.settle(Usage(), 0)
        if isinstance(given, Refused):
            raise _refused(given, entry)
        return Opened(entry=entry, output=given, price=price, own=own, call=call)

    async def close(self, opened: Opened, usage: Usage) -> int | None:
        """Says what a request did use; what it cost, None: not known. Not cut short when the task is cancelled."""
        cost = opened.price.of(usage) if opened.price is not None else None
        meter.count(usage, cost)
        if opened.call is not None:
            opened.call.units = (opened.call.units or 0) + usage.tokens
        if opened.own is not None:
            await opened.own.settle(usage, cost)
        # In a context of its own: the deadline of the call may have passed, and what was spent is spent.
        settling = asyncio.create_task(
            self._settle(opened, usage, cost), context=contextvars.Context()
        )
        try:
            await asyncio.shield(settling)
        except asyncio.CancelledError:
            await asyncio.gather(settling, return_exceptions=True)
            raise
        return cost

    async def _settle(self, opened: Opened, usage: Usage, cost: int | None) -> None:
        try:
            async with asyncio.timeout(_SETTLING):
                await self.ledger.settle(opened.entry, usage, cost)
        except (rpc.Error, TimeoutError):
            # It stays set aside, which is more than it was.
            log.exception("a request of a model is not settled", extra={"entry": opened.entry.id})

    def _accounts(self, call: rpc.Call | None, agent: str) -> list[Account]:
        tenant = ""
        found = []
        if call is not None:
            identity = call.identity
            tenant = identity.tenant if identity is not None else ""
            if call.run:
                found.append(self.account("run", run_name(tenant, call.run)))
        if agent:
            found.append(self.account("agent", agent))
        found.append(self.account("tenant", tenant))
        # In one order everywhere: whoever locks several at once locks them in it.
        return sorted(found, key=lambda account: account.key)

    # -- what one served call spends is known to its process alone

    async def _aside_for_call(
        self, call: rpc.Call | None, entry: Entry
    ) -> tuple[Entry, _Own | None]:
        if call is None or "call" not in self._limits:
            return entry, None
        kept = self._calls.get(call)
        if kept is None:
            kept = self._calls[call] = MemoryLedger()
        own = replace(entry, accounts=(self.account("call", entry.agent),))
        given = await kept.set_aside(own)
        if isinstance(given, Refused):
            raise _refused(given, own)
        return replace(entry, output=given), _Own(ledger=kept, entry=own)


def _tokens_of(request: Request) -> int:
    """About the most tokens that a request is asked with."""
    question = request.question
    asked = json.dumps(
        [question.turns, question.system, request.tools, request.schema],
        ensure_ascii=False,
        default=dict,
    )
    return len(asked.encode(errors="replace")) // _BYTES_OF_TOKEN + _OVERHEAD


def _refused(refused: Refused, entry: Entry) -> rpc.Error:
    account, spent = refused.account, refused.spent
    if account.cost is not None and not entry.priced:
        where = {"model": entry.model, "endpoint": entry.endpoint, "scope": account.scope}
        return Unpriced(metadata=where)
    metadata = {
        "scope": account.scope,
        "name": account.name,
        "spent_tokens": str(spent.tokens),
        "spent_usd": usd(spent.cost),
        "where": _where(spent),
    }
    if account.period:
        metadata["period"] = account.period
    left = []
    if account.tokens is not None:
        metadata["limit_tokens"] = str(account.tokens)
        left.append(f"{spent.tokens} of {account.tokens} tokens")
    if account.cost is not None:
        metadata["limit_usd"] = usd(account.cost)
        left.append(f"{usd(spent.cost)} of {usd(account.cost)} USD")
    whose = f"{account.scope} {account.name}".strip()
    told = f"The budget of {whose} for models has too little left: {', '.join(left)} spent"
    if metadata["where"]:
        told += f" ({metadata['where']})"
    return BudgetSpent(f"{told}.", metadata=metadata)


def _where(spent: Spent) -> str:
    return "; ".join(
        f"{agent or 'no agent'} by {model}: {tokens} tokens, {usd(cost)} USD"
        for agent, model, tokens, cost in spent.where[:_SHOWN]
    )


def usd(nano: int) -> str:
    """Billionths of a US dollar as dollars."""
    text = f"{nano / NANO:.9f}".rstrip("0")
    return text + "0" if text.endswith(".") else text
