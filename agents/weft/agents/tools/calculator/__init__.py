"""A calculator: expressions of a small grammar of its own, in decimals."""

from weft.agents.tools.calculator.grammar import ExpressionRefused, calculate
from weft.agents.tools.calculator.tool import calculator

__all__ = ["ExpressionRefused", "calculate", "calculator"]
