"""A judge is asked with both orders of the answers; two verdicts are no verdict.

Judges prefer places in a list: GPT-4 kept about two thirds of its verdicts when the order was turned round (2306.05685).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from weft.agents.orchestrator.patterns.answers import normal
from weft.agents.orchestrator.patterns.asking import ask, hear
from weft.agents.orchestrator.plan.patterns import ParticipantPlan
from weft.agents.orchestrator.run.composite import Done, Part
from weft.v1.workflow_pb2 import Position

_KEYS: Final = (("forward", "judge/forward"), ("reverse", "judge/reverse"))


def parts(
    judge: ParticipantPlan, question: str, turn: int, positions: Sequence[Position]
) -> list[Part]:
    """The two calls of a judge; `positions` are in the order of the first."""
    orders = (list(positions), list(reversed(positions)))
    return [
        ask(judge, key, question, turn=turn, peers=order, positions=order)
        for (_, key), order in zip(_KEYS, orders, strict=True)
    ]


def verdict(positions: Sequence[Position], done: Mapping[str, Done]) -> str | None:
    """The answer it chose both times, normalised; empty: there is no verdict; None: it has not ended."""
    heard = hear(_KEYS, done)
    if heard.open:
        return None
    chosen = {normal(each.answer) for each in heard.opinions.values()}
    if len(heard.opinions) < len(_KEYS) or len(chosen) != 1:
        return ""
    (answer,) = chosen
    return answer if answer in {normal(each.answer) for each in positions} else ""
