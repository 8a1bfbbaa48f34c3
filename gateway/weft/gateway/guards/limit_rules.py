"""What is limited, for whom, and by how much: rules of the gateway's settings and of skills' options.

A rule in the settings is a few words; rules are separated by semicolons:

    per=identity rate=100/s burst=20; per=tenant concurrent=50; per=identity+skill units=100000/m methods=shop.v1.*
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from types import MappingProxyType

from weft.gateway.transcoding.catalog import Method
from weft.v1 import options_pb2

_PERIODS: Mapping[str, float] = MappingProxyType({"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0})
_RATE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)/([smhd])")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_WORDS = frozenset({"per", "rate", "units", "concurrent", "burst", "methods", "name"})
_BURST = 0.04  # seconds' worth of calls that may come at once, where a rule does not say
_LEAST_RATE = 1e-6  # a second


class Kind(Enum):
    """What a rule counts."""

    RATE = "requests"
    UNITS = "units"
    CONCURRENT = "concurrent-requests"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One limit.

    Raises:
        ValueError: a value is out of its range.
    """

    name: str
    """As callers are told of it."""
    kind: Kind
    per: frozenset[str]
    """Of "identity", "tenant" and "skill", those that are counted apart; none: all calls together."""
    amount: float
    """Requests or units in a period; calls at the same time."""
    period: float = 1.0
    """Seconds."""
    burst: float = 0.0
    """What may come at once; 0: 40 ms' worth, at least 1."""
    methods: str = "*"
    """The methods it is for: "package.Service/Method", with * for any characters."""

    def __post_init__(self) -> None:
        if self.amount / self.period < _LEAST_RATE or self.burst < 0:
            raise ValueError(f"{self.name}: give an amount above 0, and a burst that is not below")
        if unknown := self.per - {"identity", "tenant", "skill"}:
            raise ValueError(f"per={min(unknown)}: must be of identity, tenant, skill, all")

    @property
    def interval(self) -> float:
        """Seconds for each request or unit."""
        return self.period / self.amount

    @property
    def at_once(self) -> float:
        """The burst, with its default filled in."""
        return self.burst or max(1.0, _BURST * self.amount / self.period)

    def matches(self, method: str) -> bool:
        """Whether it is for a method, "package.Service/Method"."""
        return fnmatchcase(method, self.methods)


def parse(text: str) -> tuple[Rule, ...]:
    """Reads the rules of a setting.

    Raises:
        ValueError: one is malformed; the message says how.
    """
    found: list[Rule] = []
    for line in re.split(r"[;\n]", text):
        if line.strip():
            found.append(_rule(line.split(), {rule.name for rule in found}))
    return tuple(found)


def of_skill(method: Method) -> Iterator[Rule]:
    """The rules of a skill's own options.

    Raises:
        ValueError: a value is out of its range.
    """
    scopes = {
        options_pb2.LIMIT_SCOPE_IDENTITY: frozenset({"identity", "skill"}),
        options_pb2.LIMIT_SCOPE_TENANT: frozenset({"tenant", "skill"}),
    }
    names: set[str] = set()
    for limit in method.skill.limits:
        chosen = limit.WhichOneof("limit")
        if chosen is None:
            raise ValueError("a limit says neither rate nor concurrent nor units")
        per = scopes.get(limit.scope, frozenset({"skill"}))
        yield Rule(
            name=_unused(f"skill-{_label(per - {'skill'})}{chosen}", names),
            kind=Kind[chosen.upper()],
            per=per,
            amount=float(getattr(limit, chosen)),
            burst=float(limit.burst),
        )


def _rule(words: Sequence[str], taken: set[str]) -> Rule:
    given = _given(words)
    kinds = [kind for kind in Kind if kind.name.lower() in given]
    if len(kinds) != 1:
        raise ValueError(f"{' '.join(words)!r}: give one of rate=, units=, concurrent=")
    (kind,) = kinds
    amount, period = _amount(kind, given[kind.name.lower()])
    if "per" not in given:
        raise ValueError(
            f"{' '.join(words)!r}: give per=identity, tenant, skill, all, or several by +"
        )
    per = frozenset() if given["per"] == "all" else frozenset(given["per"].split("+"))
    name = given.get("name") or f"{_label(per) or 'all-'}{kind.name.lower()}"
    if not _NAME.fullmatch(name):
        raise ValueError(f"name={name}: must be 1 to 64 of A-Z, a-z, 0-9, _ . -")
    return Rule(
        name=_unused(name, taken),
        kind=kind,
        per=per,
        amount=amount,
        period=period,
        burst=_number("burst", given.get("burst", "0")),
        methods=given.get("methods", "*"),
    )


def _given(words: Iterable[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not value or name not in _WORDS or name in given:
            raise ValueError(
                f"{word!r}: must be one of {', '.join(sorted(_WORDS))}, = and a value, once"
            )
        given[name] = value
    return given


def _amount(kind: Kind, value: str) -> tuple[float, float]:
    if kind is Kind.CONCURRENT:
        return _number("concurrent", value), 1.0
    match = _RATE.fullmatch(value)
    if match is None:
        raise ValueError(f"{value!r}: must be a number, / and one of s, m, h, d, such as 100/s")
    return float(match[1]), _PERIODS[match[2]]


def _number(name: str, value: str) -> float:
    if not value.isascii() or not value.isdigit():
        raise ValueError(f"{name}={value}: must be a whole number")
    return float(value)


def _label(per: Iterable[str]) -> str:
    return "".join(f"{each}-" for each in sorted(per))


def _unused(name: str, taken: set[str]) -> str:
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    taken.add(found)
    return found
