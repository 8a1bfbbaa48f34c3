"""Arithmetic in decimals that is exact as long as a result has no more than 500 digits, and never takes long.

By the General Decimal Arithmetic specification (Python's decimal): every operation is bounded by the precision, and what
would be larger than 10^9999 is an error before it is worked out.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

_DIGITS = 500
_FUNCTION_DIGITS = 60  # of functions whose values are never exact
_SHOWN = 34  # digits of a value that is not exact: those of IEEE 754 decimal128
_LARGEST = 9_999  # exponent
_PLAIN = 40  # from this exponent on a value that is not written out in full anyway has one
_TRAPS = [
    *(decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow, decimal.Underflow),
    decimal.Subnormal,
]
_MOST_PLACES = 100  # that may be rounded to

_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494")
_E = Decimal("2.71828182845904523536028747135266249775724709369995957496697")


class OutOfReach(ArithmeticError):
    """An operation has no result here; the text says why."""


class Arithmetic:
    """Works things out.

    Attributes:
        exact: whether all that was worked out so far is.
    """

    def __init__(self) -> None:
        self._context = decimal.Context(
            prec=_DIGITS,
            Emax=_LARGEST,
            Emin=-_LARGEST,
            rounding=decimal.ROUND_HALF_EVEN,
            traps=_TRAPS,
        )
        self._rough = self._context.copy()
        self._rough.prec = _FUNCTION_DIGITS
        self.constants: Mapping[str, Decimal] = {"pi": _PI, "e": _E}
        self.functions: Mapping[str, tuple[Callable[..., Decimal], int, int]] = {
            "abs": (self._context.abs, 1, 1),
            "ceil": (lambda x: self._whole(x, decimal.ROUND_CEILING), 1, 1),
            "exp": (self._rough.exp, 1, 1),
            "floor": (lambda x: self._whole(x, decimal.ROUND_FLOOR), 1, 1),
            "ln": (self._rough.ln, 1, 1),
            "log10": (self._rough.log10, 1, 1),
            "max": (lambda *all_of: max(all_of), 1, 100),
            "min": (lambda *all_of: min(all_of), 1, 100),
            "round": (self._round, 1, 2),
            "sqrt": (self._context.sqrt, 1, 1),
            "sum": (self._sum, 1, 100),
        }
        self._constant_used = False

    @property
    def exact(self) -> bool:
        """Whether all that was worked out so far is."""
        inexact = (each.flags[decimal.Inexact] for each in (self._context, self._rough))
        return not (self._constant_used or any(inexact))

    def number(self, text: str) -> Decimal:
        """A number as it is written."""
        return self._do(lambda: self._context.create_decimal(text))

    def constant(self, name: str) -> Decimal:
        """A constant."""
        self._constant_used = True
        return self.constants[name]

    def apply(self, name: str, given: Sequence[Decimal]) -> Decimal:
        """The value of a function."""
        function, _, _ = self.functions[name]
        return self._do(lambda: function(*given))

    def operate(self, sign: str, left: Decimal, right: Decimal) -> Decimal:
        """The value of an operation."""
        operations: Mapping[str, Callable[[Decimal, Decimal], Decimal]] = {
            "+": self._context.add,
            "-": self._context.subtract,
            "*": self._context.multiply,
            "/": self._context.divide,
            "//": lambda a, b: self._floored(a, b)[0],
            "%": lambda a, b: self._floored(a, b)[1],
            "^": self._power,
        }
        return self._do(lambda: operations[sign](left, right))

    def negative(self, value: Decimal) -> Decimal:
        """The value with the other sign."""
        return self._context.minus(value)

    def shown(self, value: Decimal) -> str:
        """A value in digits."""
        if not self.exact:
            value = value.normalize(decimal.Context(prec=_SHOWN, Emax=_LARGEST, Emin=-_LARGEST))
        value = value.normalize(self._context.copy()) if value else Decimal(0)
        exponent = value.as_tuple().exponent
        digits = len(value.as_tuple().digits)
        assert isinstance(exponent, int)
        if exponent > 0 and digits + exponent > max(_PLAIN, digits):
            return f"{value:E}"
        if exponent < 0 and -value.adjusted() > _PLAIN:
            return f"{value:E}"
        return f"{value:f}"

    def _do(self, work: Callable[[], Decimal]) -> Decimal:
        try:
            value = work()
        except decimal.DivisionByZero:
            raise OutOfReach("division by zero") from None
        except decimal.Overflow:
            raise OutOfReach(f"a value is larger than 10^{_LARGEST}") from None
        except (decimal.Underflow, decimal.Subnormal):
            raise OutOfReach(f"a value is nearer to zero than 10^-{_LARGEST}") from None
        except decimal.InvalidOperation:
            raise OutOfReach("this has no value") from None
        if not value.is_finite():
            raise OutOfReach("a value is infinite")
        return value

    def _power(self, base: Decimal, exponent: Decimal) -> Decimal:
        if exponent == exponent.to_integral_value():
            return self._context.power(base, exponent)
        return self._rough.power(base, exponent)

    def _floored(self, left: Decimal, right: Decimal) -> tuple[Decimal, Decimal]:
        """Quotient and remainder of a division rounded down, as in mathematics: the remainder has the divisor's sign."""
        quotient, rest = self._context.divmod(left, right)
        if rest and (rest < 0) != (right < 0):
            quotient, rest = (
                self._context.subtract(quotient, Decimal(1)),
                self._context.add(rest, right),
            )
        return quotient, rest

    def _sum(self, *given: Decimal) -> Decimal:
        total = Decimal(0)
        for each in given:
            total = self._context.add(total, each)
        return total

    def _whole(self, value: Decimal, rounding: str) -> Decimal:
        return value.to_integral_value(rounding=rounding, context=self._context)

    def _round(self, value: Decimal, places: Decimal = Decimal(0)) -> Decimal:
        """Rounded half up, as trade does."""
        if places != places.to_integral_value() or abs(places) > _MOST_PLACES:
            raise OutOfReach(f"round takes whole places, -{_MOST_PLACES} to {_MOST_PLACES}")
        unit = Decimal((0, (1,), -int(places)))
        # What is rounded on purpose is no less exact for it.
        context = self._context.copy()
        context.rounding = decimal.ROUND_HALF_UP
        return value.quantize(unit, context=context)
