"""A model as an agent has it: it answers, streams, fills messages and uses tools."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Self, TypeVar

from google.protobuf.message import Message

from weft import rpc
from weft.agents.llm import errors
from weft.agents.llm.answers import together, whole
from weft.agents.llm.asking import Asker, Candidate
from weft.agents.llm.fill import Filling
from weft.agents.llm.replies import (
    Delta,
    Filled,
    Question,
    Reply,
    Request,
    Turns,
    question_of,
)
from weft.agents.llm.tools import Bench, Tool, ToolCall

MessageT = TypeVar("MessageT", bound=Message)
Asked = str | Turns | Question

STEPS = 8


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


class Stream:
    """An answer as it comes: `async for delta in stream`, then `stream.reply`.

    Leave it by `async with`, or by `aclose`, where it is not read to its end: the model goes on writing otherwise.
    """

    def __init__(
        self, coming: AsyncGenerator[Delta | Reply], check: Callable[[Reply], Reply]
    ) -> None:
        self._coming = coming
        self._check = check
        self._reply: Reply | None = None

    @property
    def reply(self) -> Reply:
        """The whole answer.

        Raises:
            StreamBroken: it has not ended: what came of it so far is no answer.
        """
        if self._reply is None:
            raise errors.StreamBroken("The answer has not come to its end.")
        return self._reply

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        async for piece in self._coming:
            if isinstance(piece, Delta):
                return piece
            self._reply = self._check(piece)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Wants no more of it."""
        await self._coming.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


@dataclass(frozen=True, slots=True, kw_only=True)
class Worked:
    """An answer for which tools were used.

    Attributes:
        reply: the last answer; usage and cost are of all.
        calls: tools, in the order they were asked for.
        steps: answers that it took.
    """

    reply: Reply
    calls: tuple[ToolCall, ...]
    steps: int


class Model:
    """A model, with those that stand in for it.

    Args:
        asker: asks them.
        settings: how.
        name: of its entry in the settings.
    """

    def __init__(self, asker: Asker, settings: ModelSettings, name: str = "") -> None:
        self._asker = asker
        self._settings = settings
        self.name = name

    def __repr__(self) -> str:
        return f"Model({self.name}: {', '.join(each.model for each in self._asker.candidates)})"

    def having(self, **settings: object) -> Model:
        """The same model asked in another way, by fields of `ModelSettings`."""
        return Model(self._asker, replace(self._settings, **settings), self.name)  # type: ignore[arg-type]

    async def generate(
        self,
        prompt: Asked,
        *,
        system: str = "",
        max_tokens: int | None = None,
        cut_off: bool = False,
    ) -> Reply:
        """A whole answer.

        Args:
            prompt: a text, a conversation, or what a prompt file makes.
            system: what the model should know before.
            max_tokens: of the answer; by default as the settings say.
            cut_off: whether an answer that is longer is wanted as far as it goes; `reply.stop` tells.

        Raises:
            rpc.Error: one of `weft.agents.llm.errors`.
        """
        question = question_of(prompt, system)
        with self._limited() as deadline:
            reply = await self._whole(self._requests(question, max_tokens), deadline)
        return whole(reply, cut_off=cut_off)

    def stream(
        self,
        prompt: Asked,
        *,
        system: str = "",
        max_tokens: int | None = None,
        cut_off: bool = False,
        restart: bool = False,
    ) -> Stream:
        """An answer as it comes. An error after the first piece means that there is no answer.

        Args:
            prompt: see `generate`.
            system: same.
            max_tokens: same.
            cut_off: same.
            restart: whether it may begin anew when it breaks off after the first piece: then a delta says `restart`, and what
                came before is void. Without it what was shown stands, and the error is raised.
        """
        question = question_of(prompt, system)
        coming = self._asker.ask(
            self._requests(question, max_tokens), self._deadline(), restart=restart
        )
        return Stream(coming, lambda reply: whole(reply, cut_off=cut_off))

    async def fill(
        self,
        kind: type[MessageT],
        prompt: Asked,
        *,
        system: str = "",
        max_tokens: int | None = None,
    ) -> Filled[MessageT]:
        """A message that the model fills: valid by its contract, or an error.

        A message with faults goes back once, with all of them named.

        Raises:
            NotFilled: it has faults still.
            AnswerCutOff: it is longer than max_tokens.
            rpc.Error: see `generate`.
        """
        question = question_of(prompt, system)
        request = self._request(question, max_tokens)
        with self._limited() as deadline:
            return await Filling(kind, question).run(
                lambda plan: self._whole(lambda candidate: plan(candidate, request), deadline)
            )

    async def run(
        self,
        prompt: Asked,
        tools: Iterable[Tool],
        *,
        system: str = "",
        max_tokens: int | None = None,
        steps: int = STEPS,
    ) -> Worked:
        """An answer for which the model may use tools.

        The conversation is here, each request has all of it: any endpoint can answer any of them.

        Args:
            prompt: see `generate`.
            tools: what it may call.
            system: see `generate`.
            max_tokens: of each answer.
            steps: most answers that want tools.

        Raises:
            TooManySteps: it wants more.
            rpc.Error: see `generate`.
        """
        bench = Bench(tools)
        question = question_of(prompt, system)
        calls: list[ToolCall] = []
        total: Reply | None = None
        with self._limited() as deadline:
            for step in range(1, steps + 2):
                request = replace(
                    self._request(question, max_tokens), tools=bench.described, caches_turns=True
                )
                reply = await self._whole(_always(request), deadline)
                total = reply if total is None else together(total, reply)
                if not reply.uses:
                    return Worked(reply=whole(total, cut_off=False), calls=tuple(calls), steps=step)
                whole(reply, cut_off=False)
                if step > steps:
                    break
                done = await bench.call(reply.uses)
                calls += done
                question = question.then(
                    {"role": "assistant", "content": list(reply.blocks)},
                    {"role": "user", "content": [each.block for each in done]},
                )
        raise errors.TooManySteps(metadata={"model": self.name, "steps": str(steps)})

    # -- how it is asked

    async def _whole(
        self, request: Callable[[Candidate], Request], deadline: rpc.Deadline
    ) -> Reply:
        # Nobody has seen a piece of it: it may begin anew as often as there is time.
        async with contextlib.aclosing(self._asker.ask(request, deadline, restart=True)) as coming:
            async for piece in coming:
                if isinstance(piece, Reply):
                    return piece
        raise errors.StreamBroken

    def _requests(
        self, question: Question, max_tokens: int | None
    ) -> Callable[[Candidate], Request]:
        return _always(self._request(question, max_tokens))

    def _request(self, question: Question, max_tokens: int | None) -> Request:
        settings = self._settings
        return Request(
            question=question,
            max_tokens=max_tokens or question.max_tokens or settings.max_tokens,
            temperature=_first(question.temperature, settings.temperature),
            effort=question.effort or settings.effort,
            cache=settings.cache,
        )

    def _deadline(self) -> rpc.Deadline:
        return rpc.Deadline.after(self._settings.timeout).min(rpc.Deadline.current())

    def _limited(self) -> contextlib.AbstractContextManager[rpc.Deadline]:
        return self._deadline().applied()


def _first(own: float | None, other: float | None) -> float | None:
    return other if own is None else own


def _always(request: Request) -> Callable[[Candidate], Request]:
    return lambda _: request
