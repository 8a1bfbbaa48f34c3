"""The tool."""

from __future__ import annotations

from datetime import timedelta

from weft.agents.tools.calculator.grammar import calculate
from weft.agents.tools.tool import Tool
from weft.tools.v1.calculator_pb2 import CalculateRequest, CalculateResponse


def calculator(*, name: str = "calculator", scopes: tuple[str, ...] | None = None) -> Tool:
    """A tool that calculates.

    Args:
        name: see Tool.
        scopes: see Tool.
    """
    return Tool(
        name=name,
        description="Works out an arithmetic expression exactly, in decimals. Use it for every calculation.",
        request=CalculateRequest,
        response=CalculateResponse,
        run=_run,
        scopes=scopes,
        effects=False,
        timeout=timedelta(seconds=5),
    )


async def _run(request: CalculateRequest) -> CalculateResponse:
    value, exact = calculate(request.expression)
    return CalculateResponse(value=value, exact=exact)
