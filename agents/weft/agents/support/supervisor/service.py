"""The agent support-supervisor."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import grpc
import redis.asyncio

from weft import rpc
from weft.agents.support import fields
from weft.agents.support.supervisor.attempts import attempt
from weft.agents.support.supervisor.budget import Budget
from weft.agents.support.supervisor.conversations import MOST_MESSAGES, Conversations
from weft.agents.support.supervisor.exchange import STEPS, Exchange
from weft.agents.support.supervisor.followup import in_context
from weft.agents.support.supervisor.leading import Fleet
from weft.agents.support.supervisor.orchestrated import Orchestrated
from weft.agents.support.supervisor.route import Route
from weft.agents.support.supervisor.telling import Telling
from weft.support.v1 import (
    escalation_pb2,
    mailbox_pb2,
    supervisor_pb2,
    supervisor_pb2_grpc,
    support_pb2,
)
from weft.support.v1.mailbox_pb2_grpc import MailboxServiceServicer

Context = grpc.aio.ServicerContext[Any, Any]

_CONVERSATION_ID = re.compile(r"[a-zA-Z0-9-]{1,64}")
_PAGE = 500


class UnknownConversation(rpc.NotFound):
    """There is no conversation of this id."""

    reason = "UNKNOWN_CONVERSATION"


class SupervisorAgent(supervisor_pb2_grpc.SupervisorServiceServicer):
    """Answers customers by leading the fleet.

    Args:
        fleet: stubs of the agents it leads.
        client: of Redis, where conversations are, with replies in bytes.
        orchestrated: whether the fleet's orchestrator runs the pipeline, whenever it is in service.
    """

    def __init__(
        self, fleet: Fleet, client: redis.asyncio.Redis, *, orchestrated: bool = False
    ) -> None:
        self._fleet = fleet
        self._conversations = Conversations(client)
        self._telling = Telling(fleet, self._conversations)
        orchestrator = fleet.orchestrator
        self._orchestrated = (
            Orchestrated(orchestrator, self._conversations)
            if orchestrator is not None and orchestrated
            else None
        )

    async def close(self) -> None:
        """Ends what is under way beside calls."""
        if self._orchestrated is not None:
            await self._orchestrated.close()

    async def Handle(
        self, request: supervisor_pb2.HandleRequest, context: Context
    ) -> supervisor_pb2.HandleResponse:
        """Answers a customer's question with citations, or opens a ticket for a person."""
        del context
        _check(request, "")
        return await self._handle(request, lambda _: None)

    async def Watch(
        self, request: supervisor_pb2.WatchRequest, context: Context
    ) -> AsyncIterator[supervisor_pb2.WatchResponse]:
        """Answers a customer's question and shows every step on the way."""
        del context
        _check(request.request, "request.")
        steps: asyncio.Queue[support_pb2.Step | None] = asyncio.Queue()
        handling = asyncio.create_task(self._handle(request.request, steps.put_nowait))
        handling.add_done_callback(lambda _: steps.put_nowait(None))
        try:
            while (step := await steps.get()) is not None:
                yield supervisor_pb2.WatchResponse(step=step)
            yield supervisor_pb2.WatchResponse(result=await handling)
        finally:
            handling.cancel()
            await asyncio.gather(handling, return_exceptions=True)

    async def AnswerMail(
        self, request: supervisor_pb2.AnswerMailRequest, context: Context
    ) -> supervisor_pb2.AnswerMailResponse:
        """Answers a customer's mail by a mail."""
        del context
        mail = request.mail
        asked = supervisor_pb2.HandleRequest(text=mail.text, conversation_id=mail.conversation_id)
        fields.check(fields.uuid_text("mail.mail_id", mail.mail_id))
        _check(asked, "mail.")
        if self._fleet.send is None:
            raise rpc.Unavailable("Mails cannot be answered: this agent has no broker.")
        kept = await self._conversations.answered(mail.mail_id)
        if kept is None:
            await self._handle(asked, lambda _: None, mail=mail)
            kept = await self._conversations.answered(mail.mail_id)
        if kept is None:
            raise rpc.Unavailable("The answer was not kept: conversations are not available.")
        reply = mailbox_pb2.Mail.FromString(kept)
        await self._fleet.send(
            MailboxServiceServicer.Deliver,
            mailbox_pb2.DeliverRequest(mail=reply),
            id=f"mail:{reply.mail_id}",
            key=reply.conversation_id,
        )
        return supervisor_pb2.AnswerMailResponse(mail_id=reply.mail_id)

    async def Tell(
        self, request: supervisor_pb2.TellRequest, context: Context
    ) -> supervisor_pb2.TellResponse:
        """Tells a customer how it was decided what Handle left to a person."""
        del context
        fields.check(fields.uuid_text("run", request.run))
        await self._telling.tell(request)
        return supervisor_pb2.TellResponse()

    async def GetConversation(
        self, request: supervisor_pb2.GetConversationRequest, context: Context
    ) -> supervisor_pb2.GetConversationResponse:
        """Returns a conversation, with answers that people gave to its tickets."""
        del context
        fields.check(_id_rules("conversation_id", request.conversation_id))
        said = await self._conversations.read(request.conversation_id)
        if not said:
            raise UnknownConversation(metadata={"conversation": request.conversation_id})
        said += await self._people_said(request.conversation_id)
        said.sort(key=lambda message: message.time.ToNanoseconds())
        return supervisor_pb2.GetConversationResponse(
            conversation=supervisor_pb2.Conversation(
                conversation_id=request.conversation_id, messages=said[-MOST_MESSAGES:]
            )
        )

    async def _handle(
        self,
        request: supervisor_pb2.HandleRequest,
        report: Callable[[support_pb2.Step], None],
        *,
        mail: mailbox_pb2.Mail | None = None,
    ) -> supervisor_pb2.HandleResponse:
        asked = datetime.now(UTC)
        conversation_id = request.conversation_id or str(uuid.uuid4())
        call = rpc.current_call()
        if call is not None:
            call.conversation = conversation_id
        budget = Budget(rpc.Deadline.current(), steps=STEPS)
        route = Route(report)
        question = await self._question(request, budget, route)
        given = supervisor_pb2.HandleRequest(
            text=request.text, conversation_id=conversation_id, question=question
        )
        given.expire_time.FromDatetime(datetime.now(UTC) + budget.for_steps())
        exchange = Exchange(
            fleet=self._fleet,
            orchestrated=self._orchestrated,
            budget=budget,
            route=route,
            request=given,
            # The same for the same mail: handled again after a crash, it opens no second ticket.
            run=str(_derived(mail.mail_id, "ticket") if mail else uuid.uuid4()),
        )
        answer = await exchange.answer()
        await self._remember(exchange, asked, answer, mail)
        return supervisor_pb2.HandleResponse(
            conversation_id=conversation_id,
            answer=answer,
            assessment=exchange.assessment,
            verdict=exchange.verdict,
            ticket_id=exchange.ticket_id,
            route=route.steps,
            missing=route.missing,
            trace_id=_trace_id(call),
        )

    async def _question(
        self, request: supervisor_pb2.HandleRequest, budget: Budget, route: Route
    ) -> str:
        """What to look up, in the light of what was said before."""
        if not request.conversation_id:
            return request.text
        try:
            async with asyncio.timeout(budget.next_share().total_seconds()):
                earlier = await self._conversations.read(request.conversation_id)
        except (rpc.Unavailable, TimeoutError):
            route.missing.append(
                "What was said before was not read: conversations are not available."
            )
            return request.text
        return in_context(request.text, earlier, most=fields.MOST_TEXT)

    async def _remember(
        self,
        exchange: Exchange,
        asked: datetime,
        answer: support_pb2.Answer,
        mail: mailbox_pb2.Mail | None,
    ) -> None:
        question = supervisor_pb2.Message(
            role=supervisor_pb2.ROLE_CUSTOMER,
            text=exchange.request.text,
            ticket_id=exchange.ticket_id,
        )
        question.time.FromDatetime(asked)
        reply = supervisor_pb2.Message(
            role=supervisor_pb2.ROLE_AGENT,
            text=answer.text,
            answer=answer,
            ticket_id=exchange.ticket_id,
        )
        reply.time.FromDatetime(datetime.now(UTC))
        try:
            async with asyncio.timeout(exchange.budget.for_conversation().total_seconds()):
                await self._conversations.append(
                    exchange.request.conversation_id,
                    question,
                    reply,
                    mail_id=mail.mail_id if mail else "",
                    answer=_reply(mail, answer, exchange.ticket_id) if mail else b"",
                )
        except (rpc.Unavailable, TimeoutError):
            exchange.route.missing.append(
                "The conversation was not saved: conversations are not available."
            )

    async def _people_said(self, conversation_id: str) -> list[supervisor_pb2.Message]:
        """Answers that people gave to the tickets of a conversation."""
        said: list[supervisor_pb2.Message] = []
        token = ""
        while True:
            page = await attempt(
                self._fleet.escalation.ListTickets,
                escalation_pb2.ListTicketsRequest(
                    state=escalation_pb2.TICKET_STATE_ANSWERED,
                    conversation_id=conversation_id,
                    page_size=_PAGE,
                    page_token=token,
                ),
            )
            said += [_from_person(ticket) for ticket in page.tickets]
            token = page.next_page_token
            if not token:
                return said


def _reply(mail: mailbox_pb2.Mail, answer: support_pb2.Answer, ticket_id: str) -> bytes:
    """The mail that answers a mail, serialized."""
    subject = mail.subject or "Your question"
    return mailbox_pb2.Mail(
        mail_id=str(_derived(mail.mail_id, "answer")),
        address=mail.address,
        subject=(subject if subject.lower().startswith("re:") else f"Re: {subject}")[:200],
        text=answer.text,
        conversation_id=mail.conversation_id,
        answer=answer,
        ticket_id=ticket_id,
    ).SerializeToString()


def _derived(mail_id: str, what: str) -> uuid.UUID:
    return uuid.uuid5(uuid.UUID(mail_id), what)


def _from_person(ticket: escalation_pb2.Ticket) -> supervisor_pb2.Message:
    return supervisor_pb2.Message(
        role=supervisor_pb2.ROLE_PERSON,
        text=ticket.answer,
        time=ticket.answer_time,
        ticket_id=ticket.ticket_id,
    )


def _check(request: supervisor_pb2.HandleRequest, path: str) -> None:
    rules = [fields.text(f"{path}text", request.text)]
    if request.conversation_id:
        rules.append(_id_rules(f"{path}conversation_id", request.conversation_id))
    fields.check(*rules)


def _id_rules(path: str, value: str) -> Iterator[fields.Violation]:
    what = "1 to 64 characters of a-z, A-Z, 0-9 and hyphen"
    return fields.matching(path, value, _CONVERSATION_ID, what)


def _trace_id(call: rpc.Call | None) -> str:
    """The trace of the call, if it is recorded (W3C Trace Context: the last bit of the flags)."""
    if call is None or not call.traceparent.endswith("1"):
        return ""
    return call.trace_id
