"""Which replies are answers, and what several cost together."""

from __future__ import annotations

from dataclasses import replace

from weft.agents.llm import errors
from weft.agents.llm.replies import Reply

_CUT = frozenset({"max_tokens", "model_context_window_exceeded", "pause_turn"})


def together(first: Reply, second: Reply) -> Reply:
    """The second answer, with the usage and cost of both."""
    known = first.cost is not None and second.cost is not None
    return replace(
        second,
        usage=first.usage + second.usage,
        cost=(first.cost or 0) + (second.cost or 0) if known else None,
        attempts=first.attempts + second.attempts,
        fallback=first.fallback or second.fallback,
    )


def whole(reply: Reply, *, cut_off: bool = False) -> Reply:
    """The reply, where it is a whole answer.

    Raises:
        ModelRefused: it is a refusal.
        AnswerCutOff: it is a part of one, and not wanted.
    """
    where = {"model": reply.model, "endpoint": reply.endpoint}
    if reply.stop == "refusal":
        raise errors.ModelRefused(metadata=where)
    if reply.stop in _CUT and not cut_off:
        cut = errors.AnswerCutOff(metadata={**where, "stop": reply.stop})
        cut.text = reply.text
        raise cut
    return reply
