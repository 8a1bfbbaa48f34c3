"""Expressions: read and worked out in one pass, by a grammar of their own. Nothing is ever run as code.

sum      = product {("+" | "-") product}
product  = signed {("*" | "/" | "//" | "%") signed}
signed   = {"+" | "-"} power
power    = atom [("^" | "**") signed]
atom     = number | constant | function "(" sum {"," sum} ")" | "(" sum ")"
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from weft import rpc
from weft.agents.tools.calculator.arithmetic import Arithmetic, OutOfReach

_LONGEST = 1_000  # characters
_DEEPEST = 50
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,5})?)"
    r"|(?P<name>[A-Za-z_][A-Za-z_0-9]*)|(?P<sign>\*\*|//|[-+*/%^(),]))"
)
_SAME = {"**": "^"}
# As people, and texts that models have read, write them.
_WRITTEN = str.maketrans(
    {"\N{MULTIPLICATION SIGN}": "*", "\N{DIVISION SIGN}": "/", "\N{MINUS SIGN}": "-"}
)
_END = "the end"


class ExpressionRefused(rpc.InvalidArgument):
    """The expression cannot be worked out."""

    reason = "EXPRESSION_REFUSED"


def calculate(expression: str) -> tuple[str, bool]:
    """The value of an expression in digits, and whether it is exact.

    Raises:
        ExpressionRefused: it is none, or too large; the message says where.
    """
    if len(expression) > _LONGEST:
        raise _refused(f"it is longer than {_LONGEST} characters")
    reading = _Reading(expression.translate(_WRITTEN))
    try:
        value = reading.whole()
        return reading.arithmetic.shown(value), reading.arithmetic.exact
    except OutOfReach as why:
        raise _refused(str(why)) from None


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


class _Reading:
    def __init__(self, text: str) -> None:
        self.arithmetic = Arithmetic()
        self._tokens = list(_tokens(text))
        self._next = 0
        self._depth = 0

    def whole(self) -> Decimal:
        value = self._sum()
        if self._here.kind != "end":
            raise self._unexpected()
        return value

    @property
    def _here(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, *signs: str) -> str:
        """The sign that is next, if it is one of these; else nothing."""
        here = self._here
        if here.kind != "sign" or here.text not in signs:
            return ""
        self._next += 1
        return here.text

    def _need(self, sign: str) -> None:
        if not self._take(sign):
            raise self._unexpected(f", where {sign!r} should be")

    def _sum(self) -> Decimal:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _refused(f"it is nested deeper than {_DEEPEST}")
        value = self._product()
        while sign := self._take("+", "-"):
            value = self.arithmetic.operate(sign, value, self._product())
        self._depth -= 1
        return value

    def _product(self) -> Decimal:
        value = self._signed()
        while sign := self._take("*", "/", "//", "%"):
            value = self.arithmetic.operate(sign, value, self._signed())
        return value

    def _signed(self) -> Decimal:
        negative = False
        while sign := self._take("+", "-"):
            negative = negative != (sign == "-")
        value = self._power()
        return self.arithmetic.negative(value) if negative else value

    def _power(self) -> Decimal:
        base = self._atom()
        if not self._take("^"):
            return base
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _refused(f"it is nested deeper than {_DEEPEST}")
        value = self.arithmetic.operate("^", base, self._signed())
        self._depth -= 1
        return value

    def _atom(self) -> Decimal:
        here = self._here
        if self._take("("):
            value = self._sum()
            self._need(")")
            return value
        if here.kind == "number":
            self._next += 1
            return self.arithmetic.number(here.text)
        if here.kind == "name":
            self._next += 1
            return self._named(here)
        raise self._unexpected()

    def _named(self, name: _Token) -> Decimal:
        if name.text in self.arithmetic.constants:
            return self.arithmetic.constant(name.text)
        if name.text not in self.arithmetic.functions:
            known = ", ".join((*self.arithmetic.functions, *self.arithmetic.constants))
            raise _refused(
                f"there is no {name.text[:40]!r} at character {name.at}; there are {known}"
            )
        _, least, most = self.arithmetic.functions[name.text]
        self._need("(")
        given = [self._sum()]
        while self._take(","):
            given.append(self._sum())
        self._need(")")
        if not least <= len(given) <= most:
            raise _refused(f"{name.text} takes {least} to {most} values, not {len(given)}")
        return self.arithmetic.apply(name.text, given)

    def _unexpected(self, more: str = "") -> ExpressionRefused:
        here = self._here
        if here.kind == "end":
            return _refused(f"it ends too early{more}")
        return _refused(f"{here.text[:40]!r} at character {here.at} is not expected{more}")


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    end = len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if found is None:
            rest = text[at:].lstrip()
            where = len(text) - len(rest)
            raise _refused(f"{rest[0]!r} at character {where} is not expected")
        kind = found.lastgroup
        assert kind is not None
        yield _Token(kind, _SAME.get(found[kind], found[kind]), found.start(kind))
        at = found.end()
    yield _Token("end", _END, end)


def _refused(why: str) -> ExpressionRefused:
    return ExpressionRefused(f"The expression cannot be worked out: {why}.")
