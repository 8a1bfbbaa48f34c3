"""The agent support-mailbox."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from typing import Any

import grpc

from weft import rpc
from weft.agents.support import fields
from weft.agents.support.mailbox.box import Box, Mail
from weft.agents.support.outgoing import Sends
from weft.postgres import Database
from weft.rpc import paging
from weft.support.v1 import mailbox_pb2, mailbox_pb2_grpc, supervisor_pb2, support_pb2
from weft.support.v1.supervisor_pb2_grpc import SupervisorServiceServicer

Context = grpc.aio.ServicerContext[Any, Any]

_ADDRESS = re.compile(r"[^\s@]{1,64}@[^\s@]{1,189}")
_ADDRESS_IS = 'an address with one "@", at most 254 characters'
_CONVERSATION = re.compile(r"[a-zA-Z0-9-]{1,64}")
_CONVERSATION_IS = "1 to 64 characters of a-z, A-Z, 0-9 and hyphen"
_MOST_SUBJECT = 200
_FIRST = (datetime.min.replace(tzinfo=UTC), uuid.UUID(int=0))


class MailboxAgent(mailbox_pb2_grpc.MailboxServiceServicer):
    """Takes customers' mails and keeps what is written to them.

    Args:
        database: where mails are.
        send: sends durable messages; None: this mesh has none, and mails cannot be taken.
    """

    def __init__(self, database: Database, send: Sends | None) -> None:
        self._box = Box(database)
        self._send = send

    async def Receive(
        self, request: mailbox_pb2.ReceiveRequest, context: Context
    ) -> mailbox_pb2.ReceiveResponse:
        """Takes a customer's mail and has it answered by mail."""
        del context
        mail = request.mail
        fields.check(
            fields.uuid_text("mail.mail_id", mail.mail_id),
            fields.matching("mail.address", mail.address, _ADDRESS, _ADDRESS_IS),
            fields.optional_text("mail.subject", mail.subject, _MOST_SUBJECT),
            fields.text("mail.text", mail.text),
            fields.optional_matching(
                "mail.conversation_id", mail.conversation_id, _CONVERSATION, _CONVERSATION_IS
            ),
        )
        if self._send is None:
            raise rpc.Unavailable("Mails cannot be taken: this agent has no broker.")
        taken = mailbox_pb2.Mail()
        taken.CopyFrom(mail)
        # The same for the same mail, so that a repeated request names the same conversation.
        taken.conversation_id = mail.conversation_id or str(
            uuid.uuid5(uuid.NAMESPACE_URL, f"mail:{mail.mail_id}")
        )
        await self._box.put(_stored(taken, taken.address, outgoing=False))
        await self._send(
            SupervisorServiceServicer.AnswerMail,
            supervisor_pb2.AnswerMailRequest(mail=taken),
            id=f"mail:{uuid.UUID(mail.mail_id)}",
            key=taken.conversation_id,
        )
        return mailbox_pb2.ReceiveResponse(
            mail_id=mail.mail_id, conversation_id=taken.conversation_id
        )

    async def Deliver(
        self, request: mailbox_pb2.DeliverRequest, context: Context
    ) -> mailbox_pb2.DeliverResponse:
        """Puts a mail into a customer's box."""
        del context
        mail = request.mail
        fields.check(
            fields.uuid_text("mail.mail_id", mail.mail_id),
            fields.matching(
                "mail.conversation_id", mail.conversation_id, _CONVERSATION, _CONVERSATION_IS
            ),
            fields.text("mail.text", mail.text),
        )
        first = await self._box.first(mail.conversation_id)
        if first is None:
            return mailbox_pb2.DeliverResponse(delivered=False)
        await self._box.put(_stored(mail, first.address, outgoing=True))
        return mailbox_pb2.DeliverResponse(delivered=True)

    async def ListMails(
        self, request: mailbox_pb2.ListMailsRequest, context: Context
    ) -> mailbox_pb2.ListMailsResponse:
        """Lists the mails from and to a customer."""
        del context
        size = paging.page_size(request.page_size, default=50, most=500)
        fields.check(
            fields.matching("address", request.address, _ADDRESS, _ADDRESS_IS),
            fields.optional_matching(
                "conversation_id", request.conversation_id, _CONVERSATION, _CONVERSATION_IS
            ),
        )
        made_for = f"mails {request.address} {request.conversation_id}"
        found = await self._box.mails(
            request.address,
            request.conversation_id,
            behind=_behind(request.page_token, made_for),
            limit=size + 1,
        )
        response = mailbox_pb2.ListMailsResponse(mails=map(_shown, found[:size]))
        if len(found) > size:
            last = found[size - 1]
            response.next_page_token = paging.page_token(
                (last.mail_time.isoformat(), str(last.mail_id)), made_for=made_for
            )
        return response


def _behind(token: str, made_for: str) -> tuple[datetime, uuid.UUID]:
    position = paging.page_begin(token, made_for=made_for, like=("", ""))
    if position is None:
        return _FIRST
    try:
        return datetime.fromisoformat(str(position[0])), uuid.UUID(str(position[1]))
    except ValueError:
        raise rpc.InvalidArgument("is not a token of this list", field="page_token") from None


def _stored(mail: mailbox_pb2.Mail, address: str, *, outgoing: bool) -> Mail:
    return Mail(
        mail_id=uuid.UUID(mail.mail_id),
        address=address,
        conversation_id=mail.conversation_id,
        outgoing=outgoing,
        subject=mail.subject,
        text=mail.text,
        answer=mail.answer.SerializeToString() if outgoing else b"",
        ticket_id=mail.ticket_id if outgoing else "",
        mail_time=datetime.now(UTC),
    )


def _shown(mail: Mail) -> mailbox_pb2.Mail:
    shown = mailbox_pb2.Mail(
        mail_id=str(mail.mail_id),
        address=mail.address,
        conversation_id=mail.conversation_id,
        outgoing=mail.outgoing,
        subject=mail.subject,
        text=mail.text,
        ticket_id=mail.ticket_id,
    )
    shown.time.FromDatetime(mail.mail_time)
    if mail.answer:
        shown.answer.CopyFrom(support_pb2.Answer.FromString(mail.answer))
    return shown
