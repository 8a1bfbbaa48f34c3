"""A model as an agent has it: it answers, streams, fills messages and uses tools."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Self, TypeVar

from google.protobuf.message import Message

from weft.agents.llm import errors
from weft.agents.llm.answers import together, whole
from weft.agents.llm.fill import Filling
from weft.agents.llm.replies import (
    Delta,
    Filled,
    Question,
    Reply,
    Turns,
    question_of,
)
from weft.agents.llm.tools import Bench, Tool, ToolCall
from weft.agents.llm.way import Way, always

MessageT = TypeVar("MessageT", bound=Message)
Asked = str | Turns | Question

STEPS = 8


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
        way: how it is asked, and where.
        name: of its entry in the settings.
        instead: tells, now, in which other way it is to be asked; None: in this one.
    """

    def __init__(
        self, way: Way, name: str = "", instead: Callable[[], Way | None] = lambda: None
    ) -> None:
        self._way = way
        self._instead = instead
        self._own: dict[str, object] = {}
        self.name = name

    def _now(self) -> Way:
        return (self._instead() or self._way).having(self._own)

    def __repr__(self) -> str:
        return f"Model({self.name}: {', '.join(each.model for each in self._way.asker.candidates)})"

    def having(self, **settings: object) -> Model:
        """The same model asked in another way, by fields of `ModelSettings`."""
        self._way.having(settings)  # complains of what is no setting
        model = Model(self._way, self.name, self._instead)
        model._own = self._own | settings
        return model

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
        now = self._now()
        with now.limited() as deadline:
            reply = await now.whole(now.requests(question, max_tokens), deadline)
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
        now = self._now()
        coming = now.asker.ask(now.requests(question, max_tokens), now.deadline(), restart=restart)
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
        now = self._now()
        request = now.request(question, max_tokens)
        with now.limited() as deadline:
            return await Filling(kind, question).run(
                lambda plan: now.whole(lambda candidate: plan(candidate, request), deadline)
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
        now = self._now()
        with now.limited() as deadline:
            for step in range(1, steps + 2):
                request = replace(
                    now.request(question, max_tokens), tools=bench.described, caches_turns=True
                )
                reply = await now.whole(always(request), deadline)
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
