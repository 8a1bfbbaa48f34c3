"""Exact where decimals are, refused where it is too much, and nothing but arithmetic."""

from __future__ import annotations

import contextlib
import time
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tools.callers import serving, signed

from weft.agents.tools import MemoryAudit, Toolbox
from weft.agents.tools.calculator import ExpressionRefused, calculate, calculator


@pytest.mark.parametrize(
    ("expression", "value", "exact"),
    [
        ("1 + 2 * 3", "7", True),
        ("(1 + 2) * 3", "9", True),
        ("0.1 + 0.2", "0.3", True),
        ("(19.99 * 3 + 4.50) / 2", "32.235", True),
        ("2 ^ 10", "1024", True),
        ("2 ** 3 ** 2", "512", True),
        ("-2 ^ 2", "-4", True),
        ("(-2) ^ 2", "4", True),
        ("2 ^ -2", "0.25", True),
        ("7 // 2", "3", True),
        ("-7 // 2", "-4", True),
        ("-7 % 3", "2", True),
        ("7 % -3", "-2", True),
        ("6 \N{MULTIPLICATION SIGN} 7 \N{MINUS SIGN} 8 \N{DIVISION SIGN} 2", "38", True),
        ("1e3 + 1.5E-2", "1000.015", True),
        (".5 + 5.", "5.5", True),
        ("--1", "1", True),
        ("+-+1", "-1", True),
        ("0 * -1", "0", True),
        ("abs(-3) + max(1, 2, 3) - min(4, 5)", "2", True),
        ("sum(0.1, 0.2, 0.3)", "0.6", True),
        ("floor(-1.5) + ceil(1.2)", "0", True),
        ("round(2.5) + round(-2.5)", "0", True),
        ("round(1.005, 2)", "1.01", True),
        ("round(1234, -2)", "1200", True),
        ("sqrt(2.25)", "1.5", True),
        ("sqrt(2)", "1.414213562373095048801688724209698", False),
        ("1 / 3", "0.3333333333333333333333333333333333", False),
        ("1 / 3 * 3", "1", False),
        ("2 ^ 0.5 * 2 ^ 0.5", "2", False),
        ("ln(e)", "1", False),
        ("log10(1000)", "3", True),
        ("exp(0)", "1", True),
        ("2 * pi", "6.283185307179586476925286766559006", False),
        ("2 ^ 400", str(2**400), True),
        ("3 ^ 1000 % 7", "4", True),
        ("10 ^ 60", "1E+60", True),
        ("10 ^ -60", "1E-60", True),
        ("100000000000000000000 + 1", "100000000000000000001", True),
        ("1.50", "1.5", True),
    ],
)
def test_values(expression, value, exact) -> None:
    assert calculate(expression) == (value, exact)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "   ",
        "1 +",
        "* 2",
        "(1",
        "1)",
        "1 2",
        "1,2",
        "()",
        "1..2",
        "0x10",
        "1_000",
        "1;2",
        "a",
        "abs",
        "abs()",
        "abs(1, 2)",
        "round(1, 0.5)",
        "round(1, 1000)",
        "1 / 0",
        "0 ^ 0 / 0",
        "0 ^ -1",
        "5 % 0",
        "5 // 0",
        "sqrt(-1)",
        "ln(0)",
        "ln(-1)",
        "(-8) ^ 0.5",
        "9 ^ 9 ^ 9",
        "9 ^ 9 ^ 9 ^ 9",
        "10 ^ 10000",
        "10 ^ -10000",
        "exp(100000)",
        "1e99999",
        "1e999999",
        "2 ^ 1e9999",
        "__import__('os').system('id')",
        "().__class__",
        "lambda: 1",
        "[1]",
        "'a' * 9",
        "1 if 1 else 2",
        "1 == 1",
        "1 << 9",
        "x := 1",
        "nan",
        "inf",
        "NaN + 1",
        "Infinity",
        "\N{ARABIC-INDIC DIGIT ONE}",
        "\N{SUPERSCRIPT TWO}",
        "1\0",
        "(" * 51 + "1" + ")" * 51,
        "2^" * 51 + "1",
        "abs(" * 60 + "1" + ")" * 60,
        "1" * 1_001,
        "max(" + "1," * 100 + "1)",
    ],
)
def test_what_is_none_or_too_much_is_refused(expression) -> None:
    with pytest.raises(ExpressionRefused) as refused:
        calculate(expression)
    assert refused.value.message.startswith("The expression cannot be worked out: ")
    assert len(refused.value.message) < 300


def _expressions(depth: int) -> st.SearchStrategy[tuple[str, Fraction]]:
    numbers = st.decimals(
        min_value=-1_000, max_value=1_000, places=3, allow_nan=False, allow_infinity=False
    ).map(lambda each: (f"({each})" if each < 0 else str(each), Fraction(each)))
    if not depth:
        return numbers
    inner = _expressions(depth - 1)
    operations = {"+": Fraction.__add__, "-": Fraction.__sub__, "*": Fraction.__mul__}
    return numbers | st.builds(
        lambda left, sign, right: (
            f"({left[0]} {sign} {right[0]})",
            operations[sign](left[1], right[1]),
        ),
        inner,
        st.sampled_from(sorted(operations)),
        inner,
    )


@settings(max_examples=300, deadline=None, derandomize=True)
@given(_expressions(4))
def test_sums_and_products_are_those_of_exact_fractions(made) -> None:
    expression, expected = made
    if len(expression) > 1_000:
        return
    value, exact = calculate(expression)
    with localcontext() as context:
        context.prec = 600
        assert Fraction(Decimal(value)) == expected
    assert exact


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.text(alphabet="0123456789.eE+-*/%^(), abspiroundlgqtmxf_'\"\\[]{}:;=", max_size=60))
def test_whatever_is_asked_is_answered_or_refused(expression) -> None:
    try:
        value, _ = calculate(expression)
    except ExpressionRefused:
        return
    assert Decimal(value).is_finite()


def test_the_worst_takes_little() -> None:
    """The longest expressions of the dearest operations."""
    worst = (
        "+".join(["ln(9^9)"] * 125),
        "*".join(["7^7^3.1"] * 125)[:999],
        "+".join(["exp(9.9)"] * 110),
        "+".join(["1.1^99999"] * 99),
        "%".join(["9e4999"] * 140),
    )
    took = []
    for expression in worst:
        began = time.process_time()
        with contextlib.suppress(ExpressionRefused):
            calculate(expression[:1_000])
        took.append(time.process_time() - began)
    assert max(took) < 1, took


async def test_a_model_calculates() -> None:
    async with Toolbox([calculator()], audit=MemoryAudit()) as toolbox:

        async def model():
            (offer,) = toolbox
            return [await offer({"expression": each}) for each in ("0.1 + 0.2", "9 ^ 9 ^ 9")]

        well, refused = await serving(signed("user:ann", "tools.calculator"), model)
    assert (well.text, well.is_error) == ('{"value":"0.3","exact":true}', False)
    assert refused.is_error
    assert "larger than 10^9999" in refused.text
