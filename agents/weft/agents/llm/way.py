"""How a model is asked: where, with which settings, for how long."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from weft import rpc
from weft.agents.llm import errors
from weft.agents.llm.asking import Asker, Candidate
from weft.agents.llm.replies import Question, Reply, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """How a model is asked.

    Attributes:
        max_tokens: of an answer.
        timeout: for a whole question, all attempts, repairs and tools; the caller's deadline where that is sooner.
        temperature: where the endpoint has it; None: its own.
        effort: low to max, where the model has it; empty: its own.
        cache: how long the system prompt is kept: 5m, 1h or off.
    """

    max_tokens: int = 4_096
    timeout: timedelta = timedelta(minutes=2)
    temperature: float | None = None
    effort: str = ""
    cache: str = "5m"


@dataclass(frozen=True, slots=True)
class Way:
    """A way to ask a model and those that stand in for it.

    Attributes:
        asker: asks them.
        settings: how.
    """

    asker: Asker
    settings: ModelSettings

    def having(self, settings: Mapping[str, object]) -> Way:
        """The same with other settings, by fields of `ModelSettings`."""
        if not settings:
            return self
        return Way(self.asker, replace(self.settings, **settings))  # type: ignore[arg-type]

    async def whole(self, request: Callable[[Candidate], Request], deadline: rpc.Deadline) -> Reply:
        """A whole answer; begun anew where it breaks off, as often as there is time."""
        # Nobody has seen a piece of it: it may begin anew as often as there is time.
        async with contextlib.aclosing(self.asker.ask(request, deadline, restart=True)) as coming:
            async for piece in coming:
                if isinstance(piece, Reply):
                    return piece
        raise errors.StreamBroken

    def requests(
        self, question: Question, max_tokens: int | None
    ) -> Callable[[Candidate], Request]:
        """The same request for every model that may answer."""
        return always(self.request(question, max_tokens))

    def request(self, question: Question, max_tokens: int | None) -> Request:
        """What is asked of any of the models."""
        settings = self.settings
        return Request(
            question=question,
            max_tokens=max_tokens or question.max_tokens or settings.max_tokens,
            temperature=_first(question.temperature, settings.temperature),
            effort=question.effort or settings.effort,
            cache=settings.cache,
        )

    def deadline(self) -> rpc.Deadline:
        """When the answer must be there."""
        return rpc.Deadline.after(self.settings.timeout).min(rpc.Deadline.current())

    def limited(self) -> contextlib.AbstractContextManager[rpc.Deadline]:
        """Makes that the deadline of the block."""
        return self.deadline().applied()


def _first(own: float | None, other: float | None) -> float | None:
    return other if own is None else own


def always(request: Request) -> Callable[[Candidate], Request]:
    """One request, whichever model it goes to."""
    return lambda _: request
