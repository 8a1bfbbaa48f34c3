"""Fills a message: by a schema the endpoint is held to, by a tool it must call, or by words; one repair."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeAlias, TypeVar

from google.protobuf.message import Message

from weft.agents import filling
from weft.agents.filling import Schema, Unfit
from weft.agents.llm.answers import together, whole
from weft.agents.llm.asking import Candidate
from weft.agents.llm.endpoints import Endpoint, Structured
from weft.agents.llm.errors import ModelRejected, NotFilled
from weft.agents.llm.replies import Filled, Question, Reply, Request

MessageT = TypeVar("MessageT", bound=Message)

Plan: TypeAlias = Callable[[Candidate, Request], Request]
Ask: TypeAlias = Callable[[Plan], Awaitable[Reply]]

_MOST_TOLD = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    """An answer with faults, and the faults."""

    reply: Reply
    faults: tuple[tuple[str, str], ...]


class Filling(Generic[MessageT]):
    """One message to be filled.

    Args:
        kind: of message.
        question: what to fill it from.
    """

    def __init__(self, kind: type[MessageT], question: Question) -> None:
        self._kind = kind
        self._question = question
        self._schema: Schema = filling.schema_of(kind.DESCRIPTOR)
        self._by_tool = False
        self._by_format = False

    async def run(self, ask: Ask) -> Filled[MessageT]:
        """Asks, and once more where there are faults.

        Raises:
            NotFilled: there are still.
            rpc.Error: see `weft.agents.llm.model.Model.fill`.
        """
        reply = await self._asked(ask)
        try:
            return Filled(message=self._read(reply), repaired=False, reply=reply)
        except Unfit as unfit:
            turn = _Turn(reply=reply, faults=unfit.faults)
        second = await ask(lambda candidate, request: self._plan(candidate, request, turn))
        reply = together(reply, second)
        try:
            return Filled(message=self._read(second), repaired=True, reply=reply)
        except Unfit as unfit:
            name = self._kind.DESCRIPTOR.full_name
            raise NotFilled(
                name, unfit.faults, model=reply.model, endpoint=reply.endpoint
            ) from None

    async def _asked(self, ask: Ask) -> Reply:
        try:
            return await ask(self._plan)
        except ModelRejected as rejected:
            # "The compiled grammar is too large": known only once it was tried.
            if not self._by_format or rejected.metadata.get("status") != "400":
                raise
            self._by_tool = True
            return await ask(self._plan)

    def _plan(self, candidate: Candidate, request: Request, turn: _Turn | None = None) -> Request:
        """The request of a candidate, in the way that its endpoint can be held to the schema."""
        way = self._way(candidate.client.endpoint)
        question = self._question
        if way == "prompt":
            told = (
                "Answer with one JSON object and nothing else: no prose, no code fence. "
                f"It must fit this JSON schema:\n{self._schema.text}"
            )
            question = replace(question, system=f"{question.system}\n\n{told}".strip())
        if turn is not None:
            question = _repairing(question, turn)
        request = replace(request, question=question)
        if way == "format":
            self._by_format = True
            return replace(request, schema=self._schema.schema)
        if way == "forced_tool":
            name = self._schema.tool_name
            tool = {
                "name": name,
                "description": f"Takes the {self._kind.DESCRIPTOR.name} that was asked for.",
                "input_schema": self._schema.schema,
            }
            choice = {"type": "tool", "name": name, "disable_parallel_tool_use": True}
            return replace(request, tools=[tool], tool_choice=choice)
        return request

    def _way(self, endpoint: Endpoint) -> Structured:
        way = endpoint.structured
        if way == "format" and (self._by_tool or self._schema.too_free):
            way = "forced_tool"
        if way == "forced_tool" and not endpoint.tool_choice:
            way = "prompt"
        return way

    def _read(self, reply: Reply) -> MessageT:
        # A part of a message that happens to be valid is not what was meant.
        whole(reply)
        if len(reply.uses) > 1:
            raise Unfit([("$", "is given more than once")])
        for use in reply.uses:
            if use.fault:
                raise Unfit([("$", use.fault)])
            return filling.read(self._kind, use.arguments)
        return filling.read(self._kind, filling.json_of(reply.text))


def _repairing(question: Question, turn: _Turn) -> Question:
    faults = "\n".join(f"- {path}: {text}" for path, text in turn.faults[:_MOST_TOLD])
    told = (
        f"That does not fit the schema:\n{faults}\nGive it again, whole, with these faults mended."
    )
    # As words, whichever way it came: another endpoint may be asked now, in another way.
    said = turn.reply.text or json.dumps(
        [dict(use.arguments) for use in turn.reply.uses], ensure_ascii=False
    )
    answer: list[dict[str, Any]] = [{"type": "text", "text": said.strip() or "(nothing)"}]
    return question.then(
        {"role": "assistant", "content": answer},
        {"role": "user", "content": told},
    )
