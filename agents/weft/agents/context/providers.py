"""Providers: a skill of the mesh, long-term memory, what was said before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import Message

from weft.agents.context.model import Fact, Need, Provider

if TYPE_CHECKING:
    from weft.agents.memory import Conversations, Knowledge

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)


def by_skill(
    skill: Callable[[RequestT], Awaitable[ResponseT]],
    *,
    request: Callable[[Need], RequestT],
    read: Callable[[ResponseT], Sequence[Fact]],
) -> Provider:
    """A provider that asks an agent. The call is made in the name of whoever is served, within the deadline.

    Args:
        skill: a method of a stub, as `mesh.stub(CrmServiceStub).GetCustomer`.
        request: makes its request.
        read: reads facts out of its answer.
    """

    async def provider(need: Need) -> Sequence[Fact]:
        return read(await skill(request(need)))

    return provider


def of_knowledge(knowledge: Knowledge, *, limit: int = 5) -> Provider:
    """A provider of what the tenant's documents say about the question.

    Give its source a ttl of 0: long-term memory keeps results by itself, and drops them when a document is deleted.

    Args:
        knowledge: long-term memory.
        limit: facts, at most.
    """

    async def provider(need: Need) -> Sequence[Fact]:
        if not need.question.strip():
            return ()
        found = await knowledge.of(need.tenant).search(need.question[:2_000], limit=limit)
        best = found.hits[0].score if found.hits else 1.0
        return [
            Fact(
                text=" > ".join([hit.citation.title, *hit.citation.headings[1:]])
                + ": "
                + " ".join(hit.citation.quote.split()),
                relevance=hit.score / best,
                source=f"{hit.citation.document}:{hit.citation.begin}-{hit.citation.end}",
            )
            for hit in found.hits
        ]

    return provider


def of_conversation(conversations: Conversations, *, turns: int = 6) -> Provider:
    """A provider of what was said before in the conversation: its summary and the last turns.

    Give its source a ttl of 0: each turn changes it.

    Args:
        conversations: where they are.
        turns: how many of the last ones.
    """

    async def provider(need: Need) -> Sequence[Fact]:
        if not need.conversation:
            return ()
        recalled = await conversations.of(need.tenant, need.conversation).recall()
        said = recalled.turns[-turns:]
        facts = [
            Fact(
                text=f"{turn.name or turn.role}: {turn.text}",
                relevance=1 - 0.5 * (len(said) - number) / (len(said) + 1),
                source=f"turn {number} of the last {len(said)}",
                at=turn.at,
            )
            for number, turn in enumerate(said, 1)
        ]
        if recalled.summary is not None:
            source = f"{recalled.summary.made} summary of {recalled.summary.turns} turns"
            facts.append(Fact(text=recalled.summary.text, relevance=0.6, source=source))
        return facts

    return provider
