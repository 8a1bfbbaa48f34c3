"""Mails: taken, answered and delivered as durable messages, tickets and reminders among them."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from weft import rpc
from weft.agents import Host, support
from weft.broker import Broker
from weft.postgres import Database
from weft.registry import Registry
from weft.rpc import error_from_call
from weft.rpc.testing import channel_for, wait_until
from weft.support.v1 import (
    escalation_pb2,
    escalation_pb2_grpc,
    mailbox_pb2,
    mailbox_pb2_grpc,
    supervisor_pb2,
    supervisor_pb2_grpc,
)
from weft.v1 import broker_pb2, broker_pb2_grpc

pytestmark = pytest.mark.usefixtures("fresh_xds")
ANN = "ann@example.com"


@pytest_asyncio.fixture
async def host(database_url: str, redis_url: str) -> AsyncIterator[Host]:
    """The fleet on a mesh with a broker."""
    async with (
        Registry(
            database_url=database_url, address="127.0.0.1:0", cold_start=timedelta(0)
        ) as registry,
        Broker(redis_url=redis_url, database_url=database_url, address="127.0.0.1:0") as broker,
        Host(registry=registry.address, brokers=broker.address) as host,
        support.fleet(
            database_url=database_url,
            redis_url=redis_url,
            stub=host.mesh.stub,
            send=host.mesh.send,
        ) as servicers,
    ):
        for servicer in servicers:
            host.add(servicer)
        await host.start()
        yield host
        await host.stop()


def mail(text: str, **more: str) -> mailbox_pb2.Mail:
    fields = {"mail_id": str(uuid.uuid4()), "address": ANN, "subject": "My card", **more}
    return mailbox_pb2.Mail(text=text, **fields)


async def mails(host: Host, conversation: str = "") -> list[mailbox_pb2.Mail]:
    box = host.mesh.stub(mailbox_pb2_grpc.MailboxServiceStub)
    request = mailbox_pb2.ListMailsRequest(address=ANN, conversation_id=conversation)
    return list((await box.ListMails(request)).mails)


async def answers(host: Host, count: int) -> list[mailbox_pb2.Mail]:
    """The mails written to Ann, when there are `count`."""

    async def enough() -> bool:
        return sum(one.outgoing for one in await mails(host)) >= count

    await wait_until(enough, timedelta(seconds=10))
    return [one for one in await mails(host) if one.outgoing]


async def test_a_mail_is_answered_by_a_mail_in_its_conversation(host: Host) -> None:
    box = host.mesh.stub(mailbox_pb2_grpc.MailboxServiceStub)
    sent = mail("I am still waiting on my card?")
    taken = await box.Receive(mailbox_pb2.ReceiveRequest(mail=sent))
    again = await box.Receive(mailbox_pb2.ReceiveRequest(mail=sent))
    assert again == taken
    [answer] = await answers(host, 1)
    assert answer.subject == "Re: My card"
    assert answer.conversation_id == taken.conversation_id
    assert answer.answer.citations[0].passage_id == "card-arrival#still-waiting-for-your-card"
    supervisor = host.mesh.stub(supervisor_pb2_grpc.SupervisorServiceStub)
    said = await supervisor.GetConversation(
        supervisor_pb2.GetConversationRequest(conversation_id=taken.conversation_id)
    )
    assert [message.text for message in said.conversation.messages] == [sent.text, answer.text]


async def test_a_mail_answered_twice_is_answered_once(host: Host) -> None:
    sent = mail("I am still waiting on my card?", conversation_id="c-1")
    box = host.mesh.stub(mailbox_pb2_grpc.MailboxServiceStub)
    await box.Receive(mailbox_pb2.ReceiveRequest(mail=sent))
    await answers(host, 1)
    # As after a crash between the work and its acknowledgement.
    await host.mesh.request(
        supervisor_pb2_grpc.SupervisorServiceServicer.AnswerMail,
        supervisor_pb2.AnswerMailRequest(mail=sent),
    )
    assert len([one for one in await mails(host) if one.outgoing]) == 1


async def test_what_a_person_answers_comes_by_mail_too(host: Host) -> None:
    box = host.mesh.stub(mailbox_pb2_grpc.MailboxServiceStub)
    desk = host.mesh.stub(escalation_pb2_grpc.EscalationServiceStub)
    await box.Receive(mailbox_pb2.ReceiveRequest(mail=mail("what is the weather in Paris?")))
    [answer] = await answers(host, 1)
    assert answer.ticket_id
    await desk.AnswerTicket(
        escalation_pb2.AnswerTicketRequest(
            ticket_id=answer.ticket_id, assignee="Bea", answer="We only know about cards."
        )
    )
    _, person = await answers(host, 2)
    assert person.text == "We only know about cards."
    assert person.ticket_id == answer.ticket_id


async def test_a_ticket_that_is_not_answered_in_time_is_raised(
    host: Host, database_url: str
) -> None:
    desk = host.mesh.stub(escalation_pb2_grpc.EscalationServiceStub)
    opened = await desk.OpenTicket(
        escalation_pb2.OpenTicketRequest(
            request_id=str(uuid.uuid4()), conversation_id="c", question="?", reason="none"
        )
    )
    async with rpc.Channel(host.mesh._brokers) as channel:
        queue = await broker_pb2_grpc.BrokerServiceStub(channel).Describe(
            broker_pb2.DescribeRequest(queue="support-escalation")
        )
    assert queue.status.delayed == 1  # the reminder
    async with await Database.connect(database_url, schema="support") as database:
        await database._pool.execute("UPDATE tickets SET due_time = now() - interval '1 minute'")
    raised = await host.mesh.request(
        escalation_pb2_grpc.EscalationServiceServicer.Remind,
        escalation_pb2.RemindRequest(ticket_id=opened.ticket.ticket_id),
    )
    assert raised.ticket.priority == opened.ticket.priority + 1
    again = await host.mesh.request(
        escalation_pb2_grpc.EscalationServiceServicer.Remind,
        escalation_pb2.RemindRequest(ticket_id=opened.ticket.ticket_id),
    )
    assert again.ticket.priority == raised.ticket.priority


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"mail_id": "7"}, "mail.mail_id"),
        ({"address": "nobody"}, "mail.address"),
        ({"text": " "}, "mail.text"),
        ({"subject": "x" * 201}, "mail.subject"),
        ({"conversation_id": "a b"}, "mail.conversation_id"),
    ],
)
async def test_what_is_wrong_with_a_mail_is_named(
    store: Database, changes: dict[str, str], field: str
) -> None:
    wrong = mail("hello")
    for name, value in changes.items():
        setattr(wrong, name, value)
    add = mailbox_pb2_grpc.add_MailboxServiceServicer_to_server
    async with channel_for(add, support.MailboxAgent(store, None)) as channel:
        box = mailbox_pb2_grpc.MailboxServiceStub(channel)
        with pytest.raises(Exception, match=field) as caught:
            await box.Receive(mailbox_pb2.ReceiveRequest(mail=wrong))
    error = error_from_call(caught.value)
    assert isinstance(error, rpc.InvalidArgument)
    assert [path for path, _ in error.violations] == [field]
