"""Limits of calls: requests, units and calls at the same time, per identity, skill and tenant.

What this gateway knows is asked first, so that a caller far beyond its limit costs nothing; then Redis, which all
gateways share and whose word counts. Where Redis is away, each gateway keeps the limits by itself.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta

from google.rpc import error_details_pb2

from weft import rpc
from weft.gateway.guards import limit_rules
from weft.gateway.guards.leases import SPAN, Leases
from weft.gateway.guards.limit_rules import Kind, Rule
from weft.gateway.transcoding.catalog import Method
from weft.limits import Buckets, SharedLimits, Step
from weft.rpc.call import UNITS_KEY, Call, Metadata
from weft.rpc.subjects import subject_of
from weft.v1.identity_pb2 import Identity

log = logging.getLogger("weft.gateway")

Headers = list[tuple[bytes, bytes]]

_DIGITS = 12
_PLACE_WAIT = 1.0  # seconds a caller waits whose calls are all under way
_SEPARATOR = "\x1f"
_NO_WAIT = (0.0,)


class LimitReached(rpc.ResourceExhausted):
    """A limit of the gateway is reached; try again later."""

    reason = "RATE_LIMITED"


class Plan:
    """The rules of one method.

    Attributes:
        costs: seconds a call puts into the bucket of each rule as it comes: never more than fit.
        brims: seconds that fit into the bucket of each rule.
        lease: for how many calls Redis may be asked at once; 1: for each by itself.
        counts_units: whether what an agent says of a call's cost matters.
    """

    __slots__ = (
        *("_names", "brims", "costs", "counts_units", "lease", "path", "policy", "rules"),
        "units",
    )

    def __init__(self, path: str, rules: Sequence[Rule], units: int) -> None:
        self.path = path
        self.rules = tuple(rules)
        self.units = max(1.0, float(units))
        self.policy = ", ".join(_policy(rule) for rule in rules).encode()
        self.brims = tuple(rule.at_once * rule.interval for rule in rules)
        self.costs = tuple(
            min(self.units if rule.kind is Kind.UNITS else 1.0, rule.at_once) * rule.interval
            for rule in rules
        )
        self.counts_units = any(rule.kind is Kind.UNITS for rule in rules)
        places = any(rule.kind is Kind.CONCURRENT for rule in rules)
        self.lease = 1 if places or not rules else self._lease()
        self._names = tuple((rule.name, *sorted(rule.per)) for rule in rules)

    def _lease(self) -> int:
        shares = (
            min(SPAN, brim / 4) / cost for cost, brim in zip(self.costs, self.brims, strict=True)
        )
        return max(1, math.floor(min(shares) + 1e-6))

    def keys(self, identity: Identity) -> list[str]:
        """Whose limits a call counts for, a rule each."""
        who = {"identity": subject_of(identity), "tenant": identity.tenant, "skill": self.path}
        return [_SEPARATOR.join([name, *(who[each] for each in per)]) for name, *per in self._names]


class CallLimits:
    """Lets calls in as far as the rules allow.

    Args:
        rules: those of the settings; skills bring theirs.
        shared: what all gateways share; None: this gateway is alone.
        on_refused: told the name of the rule that refuses a call, the method, and who called.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        rules: Iterable[Rule] = (),
        shared: SharedLimits | None = None,
        *,
        on_refused: Callable[[str, str, Identity | None], None] = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules = tuple(rules)
        self._shared = shared
        self._on_refused = on_refused
        self._clock = clock
        self._plans: dict[str, Plan] = {}
        self._buckets = Buckets()
        self._places: dict[str, int] = {}
        self._leases = Leases()

    def use(self, methods: Mapping[str, Method]) -> None:
        """Takes the methods that can be called, by path; replaces those before."""
        plans = (self._plan(method) for method in methods.values())
        self._plans = {plan.path: plan for plan in plans if plan.rules}

    def plan(self, path: str) -> Plan | None:
        """The rules of a method, if it has any."""
        return self._plans.get(path)

    async def enter(self, plan: Plan, call: Call, headers: Headers) -> Entry:
        """Lets a call in; `done` of what is returned must be called in the end.

        Args:
            plan: of its method.
            call: who calls.
            headers: takes RateLimit and RateLimit-Policy, of a call that is refused too.

        Raises:
            LimitReached: not now; `retry_after` says when.
        """
        identity = call.identity
        keys = plan.keys(identity if identity is not None else Identity())
        now = self._clock()
        levels: Sequence[float] = self._levels(plan, keys, now)
        places: list[Step] = []
        waits = _waits(plan, levels)
        if self._shared is not None and not any(waits):
            if plan.lease > 1:
                waits, levels = await self._leased(plan, keys, levels, now)
            else:
                places, waits, levels = await self._asked(plan, keys, levels, now)
        if any(waits):
            self._free(places)
            headers += _headers(plan, levels, taken=False)
            self._refuse(plan, waits, identity)
        for rule, key, cost in zip(plan.rules, keys, plan.costs, strict=True):
            if rule.kind is Kind.CONCURRENT:
                self._places[key] = self._places.get(key, 0) + 1
            else:
                self._buckets.add(key, now, cost)
        headers += _headers(plan, levels, taken=True)
        return Entry(self, plan, keys, places)

    async def _asked(
        self, plan: Plan, keys: Sequence[str], levels: Sequence[float], now: float
    ) -> tuple[list[Step], Sequence[float], Sequence[float]]:
        """Asks Redis for one call: the places it takes, how long to wait for each rule, and the levels."""
        assert self._shared is not None
        steps = self._steps(plan, keys)
        places = [step for step in steps if step[0] == "hold"]
        try:
            answer = await self._shared.take(steps)
        except BaseException:
            self._free(places)
            raise
        if answer is None:
            return places, _NO_WAIT, levels
        taken, levels = answer
        self._learn(plan, keys, levels, now)
        return places, _NO_WAIT if taken else _waits(plan, levels), levels

    async def _leased(
        self, plan: Plan, keys: Sequence[str], levels: Sequence[float], now: float
    ) -> tuple[Sequence[float], Sequence[float]]:
        """The same for rules of which several calls' worth may be taken."""
        # What a call costs in units is a method's own; calls of all methods count the same for the rest.
        who = [plan.path, *keys] if plan.counts_units else keys
        lease = self._leases.of(_SEPARATOR.join(who), now)
        if lease.use(now):
            return _NO_WAIT, levels
        while lease.asking:
            if await lease.wait():
                return _NO_WAIT, self._levels(plan, keys, self._clock())
        now = self._clock()
        calls = lease.calls(plan.lease, now)
        if calls > 1:
            with lease.asked():
                assert self._shared is not None
                answer = await self._shared.take(self._steps(plan, keys, calls))
                if answer is None:
                    return _NO_WAIT, levels
                if answer[0]:
                    lease.take(calls - 1, now)
                    self._learn(plan, keys, answer[1], now)
                    return _NO_WAIT, answer[1]
                now = self._clock()
                lease.refused(now)
        _, waits, levels = await self._asked(plan, keys, levels, now)
        return waits, levels

    def leave(self, plan: Plan, keys: Sequence[str], places: Sequence[Step], cost: float) -> None:
        """See `Entry.done`."""
        now = self._clock()
        for rule, key, came in zip(plan.rules, keys, plan.costs, strict=True):
            if rule.kind is Kind.CONCURRENT:
                self._places[key] -= 1
                if not self._places[key]:
                    del self._places[key]
            elif rule.kind is Kind.UNITS and (more := cost * rule.interval - came):
                self._add(key, now, more)
        self._free(places)

    def spent(self, path: str, identity: Identity, units: float) -> None:
        """What a call cost that was let in, and left, at what the skill's option says: a job that has ended."""
        plan = self._plans.get(path)
        if plan is None or units == plan.units:
            return
        now = self._clock()
        for rule, key in zip(plan.rules, plan.keys(identity), strict=True):
            if rule.kind is Kind.UNITS:
                self._add(key, now, (units - plan.units) * rule.interval)

    def _add(self, key: str, now: float, more: float) -> None:
        self._buckets.add(key, now, more)
        if self._shared is not None:
            self._shared.tell(("add", key, more))

    def _plan(self, method: Method) -> Plan:
        rules = [rule for rule in self._rules if rule.matches(method.full_name)]
        try:
            rules += limit_rules.of_skill(method)
        except ValueError as wrong:
            log.warning("limits of %s are not kept: %s", method.full_name, wrong)
        return Plan(method.path, rules, method.skill.units)

    def _levels(self, plan: Plan, keys: Sequence[str], now: float) -> list[float]:
        return [
            self._places.get(key, 0)
            if rule.kind is Kind.CONCURRENT
            else self._buckets.level(key, now)
            for rule, key in zip(plan.rules, keys, strict=True)
        ]

    def _steps(self, plan: Plan, keys: Sequence[str], calls: int = 1) -> list[Step]:
        assert self._shared is not None
        return [
            self._shared.place(key, rule.amount)
            if rule.kind is Kind.CONCURRENT
            else ("rate", key, 1.0, brim, calls * cost)
            for rule, key, cost, brim in zip(plan.rules, keys, plan.costs, plan.brims, strict=True)
        ]

    def _learn(
        self, plan: Plan, keys: Sequence[str], levels: Sequence[float], asked: float
    ) -> None:
        # What Redis said is at least as old as the question: a bucket is never taken for fuller than it is.
        for rule, key, level in zip(plan.rules, keys, levels, strict=True):
            if rule.kind is not Kind.CONCURRENT:
                self._buckets.set(key, asked, level)

    def _free(self, places: Iterable[Step]) -> None:
        for step in places:
            assert self._shared is not None
            self._shared.free(step)

    def _refuse(self, plan: Plan, waits: Sequence[float], identity: Identity | None) -> None:
        wait = max(waits)
        rule = plan.rules[waits.index(wait)]
        self._on_refused(rule.name, plan.path, identity)
        failure = error_details_pb2.QuotaFailure()
        failure.violations.add(subject=rule.name, description=_described(rule))
        raise LimitReached(
            f"The limit {rule.name} is reached ({_described(rule)}); try again in {wait:.3g} s.",
            retry_after=timedelta(seconds=wait),
            metadata={"limit": rule.name},
            details=[failure],
        )


class Entry:
    """A call that was let in."""

    __slots__ = ("_keys", "_limits", "_places", "_plan")

    def __init__(
        self, limits: CallLimits, plan: Plan, keys: Sequence[str], places: Sequence[Step]
    ) -> None:
        self._limits: CallLimits | None = limits
        self._plan = plan
        self._keys = keys
        self._places = places

    @property
    def counts_units(self) -> bool:
        """Whether what an agent says of the call's cost matters."""
        return self._plan.counts_units

    def done(self, units: float | None = None) -> None:
        """The call is over. What comes after the first time is ignored.

        Args:
            units: what it cost; None: what the skill's option says.
        """
        limits, self._limits = self._limits, None
        if limits is not None:
            cost = self._plan.units if units is None else units
            limits.leave(self._plan, self._keys, self._places, cost)


def units_in(trailing: Metadata) -> float | None:
    """What an agent says that a call cost, in its trailing metadata; None: it does not say."""
    for key, value in trailing:
        if key == UNITS_KEY:
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            if text.isascii() and text.isdigit() and len(text) <= _DIGITS:
                return float(text)
    return None


def _waits(plan: Plan, levels: Sequence[float]) -> Sequence[float]:
    """Seconds until each rule lets the call in; 0: now."""
    waits = []
    for rule, level, cost, brim in zip(plan.rules, levels, plan.costs, plan.brims, strict=True):
        if rule.kind is Kind.CONCURRENT:
            waits.append(_PLACE_WAIT if level >= rule.amount else 0.0)
        else:
            over = level + cost - brim
            waits.append(over if over > 1e-6 else 0.0)  # noqa: PLR2004 Redis counts microseconds
    return waits


def _headers(plan: Plan, levels: Sequence[float], *, taken: bool) -> Headers:
    """After draft-ietf-httpapi-ratelimit-headers-10."""
    shown = []
    for rule, level, cost in zip(plan.rules, levels, plan.costs, strict=True):
        if rule.kind is Kind.CONCURRENT:
            left = rule.amount - level - taken
            shown.append(f'"{rule.name}";r={max(0, math.floor(left))}')
            continue
        held = level + (cost if taken else 0.0)
        left = rule.at_once - held / rule.interval
        shown.append(f'"{rule.name}";r={max(0, math.floor(left + 1e-6))};t={math.ceil(held)}')
    return [(b"ratelimit-policy", plan.policy), (b"ratelimit", ", ".join(shown).encode())]


def _policy(rule: Rule) -> str:
    if rule.kind is Kind.CONCURRENT:
        return f'"{rule.name}";q={rule.amount:.0f};qu="{rule.kind.value}"'
    unit = "" if rule.kind is Kind.RATE else f';qu="{rule.kind.value}"'
    quota, window = rule.amount, rule.period
    while quota < 1 or quota % 1:  # whole numbers only
        if quota * 10 > 1e15:  # noqa: PLR2004 the largest number of RFC 9651
            break
        quota, window = quota * 10, window * 10
    return f'"{rule.name}";q={quota:.0f}{unit};w={window:.0f}'


def _described(rule: Rule) -> str:
    if rule.kind is Kind.CONCURRENT:
        return f"{rule.amount:.0f} calls at a time"
    what = "requests" if rule.kind is Kind.RATE else "units"
    return f"{rule.amount:g} {what} in {rule.period:g} s"
