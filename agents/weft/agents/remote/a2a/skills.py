"""Skills of an A2A agent as skills of the mesh: each is two methods, one that answers and one that streams."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from a2a.types import a2a_pb2 as a2a

from weft import rpc
from weft.agents.remote import contract
from weft.agents.remote.a2a import messages
from weft.agents.remote.a2a.conversations import Conversations, Place
from weft.agents.remote.a2a.session import Session
from weft.agents.remote.a2a.states import Progress
from weft.agents.remote.contract import Made, Skill, Terms
from weft.agents.remote.line import Line
from weft.agents.remote.names import camel, clean, distinct
from weft.agents.remote.schemas import Compiled
from weft.remote.v1 import conversation_pb2 as own

_REQUEST = Compiled(type_name=f".{own.SendRequest.DESCRIPTOR.full_name}")
_RESPONSE = Compiled(type_name=f".{own.SendResponse.DESCRIPTOR.full_name}")
_EVENT = Compiled(type_name=f".{own.SendStreamResponse.DESCRIPTOR.full_name}")
_MOST_SKILLS = contract.MOST_SKILLS // 2
_MOST_TAGS = 19


class RemoteSkill:
    """A skill.

    Args:
        skill_id: what the agent calls it; empty: it names none.
        line: the way to the agent.
        conversations: what callers were at.
    """

    def __init__(self, skill_id: str, line: Line[Session], conversations: Conversations) -> None:
        self._id = skill_id
        self._line = line
        self._conversations = conversations

    async def send(self, given: Any, _: object) -> bytes:
        """Sends a message and answers what the agent has made of it.

        Raises:
            rpc.Error: what went wrong, or how the task ended.
        """
        progress = Progress()

        async def work(session: Session) -> None:
            await session.send(self._request(given), progress)

        await self._line.call(work)
        self._note(progress)
        return messages.response(progress.answer()).SerializeToString()

    async def stream(self, given: Any, _: object) -> AsyncIterator[bytes]:
        """Sends a message and tells what the agent does.

        Raises:
            rpc.Error: what went wrong, or how the task ended.
        """
        progress = Progress()
        session = await self._line.here()
        events = session.stream(self._request(given), progress)
        async with contextlib.aclosing(events):
            try:
                async for each in events:
                    told = messages.event(each)
                    if told is not None:
                        yield told.SerializeToString()
            except rpc.Unavailable:
                self._line.trouble.set()
                raise
        self._note(progress)
        progress.answer()

    def _request(self, given: Any) -> a2a.SendMessageRequest:
        said = own.SendRequest.FromString(given.SerializeToString())
        place = Place(said.context_id, said.task_id)
        if not (said.context_id or said.task_id):
            place = self._conversations.find(self._id)
        return messages.request(
            said, skill=self._id, context_id=place.context_id, task_id=place.task_id
        )

    def _note(self, progress: Progress) -> None:
        if progress.message is not None:
            self._conversations.note(self._id, Place(progress.message.context_id))
        elif progress.task is not None:
            task_id = progress.task.id if progress.waits else ""
            self._conversations.note(self._id, Place(progress.task.context_id, task_id))


def make(
    terms: Terms, card: a2a.AgentCard, line: Line[Session], conversations: Conversations
) -> Made:
    """The contract of an agent with this card."""
    skills = {each.id: each for each in list(card.skills)[:_MOST_SKILLS]}
    if not skills:
        skills = {"": a2a.AgentSkill(name="Send", description=card.description)}

    def wanted(skill_id: str) -> str:
        name = camel(clean(skills[skill_id].name, 100) or skill_id)
        agent = camel(clean(card.name, 100))
        # The agent's name is not part of its skill's.
        return name.removeprefix(agent) if name[len(agent) :][:1].isupper() else name

    plain = {wanted(each) for each in skills}
    names = distinct(skills, wanted, taken={f"Stream{name}" for name in plain})
    # Who is not a gateway of Weft does not know the word.
    named = any(each.uri == messages.EXTENSION for each in card.capabilities.extensions)
    methods = [
        method
        for skill_id, skill in skills.items()
        for method in _methods(
            names[skill_id],
            skill,
            RemoteSkill(skill_id if named else "", line, conversations),
        )
    ]
    about = clean(card.description, 1_000) or clean(card.name, 100)
    return contract.make(terms, about, methods)


def _methods(name: str, skill: a2a.AgentSkill, serve: RemoteSkill) -> tuple[Skill, Skill]:
    description = clean(skill.description, 900) or clean(skill.name, 200)
    words = (clean(each, 40).lower() for each in skill.tags)
    tags = ("a2a", *[each for each in words if each][:_MOST_TAGS])
    return (
        Skill(
            name=name,
            description=description,
            request=_REQUEST,
            response=_RESPONSE,
            serve=serve.send,
            tags=tags,
        ),
        Skill(
            name=f"Stream{name}",
            description=f"{description} Tells what happens on the way.".strip(),
            request=_REQUEST,
            response=_EVENT,
            serve=serve.stream,
            streams=True,
            verb="stream",
            tags=tags,
        ),
    )
