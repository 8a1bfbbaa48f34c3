"""When a change of mind counts, and when it may change what a debate decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from weft.agents.orchestrator.patterns.answers import counts, normal
from weft.v1.workflow_pb2 import Opinion

_SOURCES: Final = 2


def names_error(opinion: Opinion) -> bool:
    """Whether something is named as wrong."""
    return any(error.strip() for error in opinion.errors_named)


def counted(former: Opinion, said: Opinion | None) -> Opinion:
    """The opinion that counts after a round.

    Who said nothing, gave no answer, or changed the answer without naming an error, still has the former one: most
    changes in debates are conformity (2605.00914), and they carry no evidence.
    """
    if said is None or not said.answer.strip():
        return former
    if normal(said.answer) == normal(former.answer) or names_error(said):
        return said
    return former


def supported(answer: str, rounds: Sequence[Mapping[str, Opinion]]) -> bool:
    """Whether there is reason to ask if a debate should leave the answer that independent votes decided.

    There is where more than half of all hold the new answer in the end, at least two gave it independently, and at least
    two of these named errors later: then it is neither conformity nor the work of a single participant. That is no proof.
    Where participants tell right from wrong no better than chance (a debate is a martingale then, 2508.17536), or one of
    them persuades better than those who are right, no rule that looks at votes alone does as well as the independent
    votes: so a judge has to confirm it.

    Args:
        answer: the new one, normalised.
        rounds: opinions as they count, by name; the independent ones first.
    """
    last = counts(rounds[-1].values())
    if 2 * last.get(answer, 0) <= len(rounds[-1]):
        return False
    sources = [name for name, each in rounds[0].items() if normal(each.answer) == answer]
    naming = [
        name for name in sources if any(_argues(each.get(name), answer) for each in rounds[1:])
    ]
    return len(sources) >= _SOURCES and len(naming) >= _SOURCES


def _argues(opinion: Opinion | None, answer: str) -> bool:
    return opinion is not None and normal(opinion.answer) == answer and names_error(opinion)
