"""Tells customers how people decided: once for a run, in its customer's conversation, and nothing but what was decided.

The orchestrator says what is true of a run, in the name of the caller: so nobody tells anything in the name of a run of
others, of one that is over, or that a person has not decided in it.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import grpc

from weft import rpc
from weft.agents.support.supervisor import pipeline, wording
from weft.agents.support.supervisor.attempts import attempt
from weft.agents.support.supervisor.conversations import Conversations
from weft.agents.support.supervisor.leading import Fleet
from weft.support.v1 import mailbox_pb2, supervisor_pb2, support_pb2
from weft.support.v1.mailbox_pb2_grpc import MailboxServiceServicer
from weft.v1.identity_pb2 import Identity
from weft.v1.orchestrator_pb2 import STEP_STATE_FAILED, STEP_STATE_SUCCEEDED, GetRunRequest, Run

_ANSWER = support_pb2.Answer.DESCRIPTOR.full_name


class UnknownRun(rpc.NotFound):
    """There is no run of the pipeline of this id."""

    reason = "UNKNOWN_RUN"


class RunNotYours(rpc.PermissionDenied):
    """This run was begun for somebody else."""

    reason = "RUN_NOT_YOURS"


class RunOver(rpc.FailedPrecondition):
    """This run has ended: what came of it was told."""

    reason = "RUN_OVER"


class NotDecided(rpc.FailedPrecondition):
    """No person has decided this in the run."""

    reason = "NOT_DECIDED"


class ToldOtherwise(rpc.FailedPrecondition):
    """The customer of this run was told something else."""

    reason = "TOLD_OTHERWISE"


class NobodyWaits(rpc.Aborted):
    """No customer waits for this run yet; try again."""

    reason = "NOBODY_WAITS"


class Telling:
    """Tells decisions.

    Args:
        fleet: with the orchestrator, and the means to send mails.
        conversations: where they are told.
    """

    def __init__(self, fleet: Fleet, conversations: Conversations) -> None:
        self._fleet = fleet
        self._conversations = conversations

    async def tell(self, request: supervisor_pb2.TellRequest) -> None:
        """Tells the customer of a run how it was decided; again, it is told once.

        Raises:
            UnknownRun, RunNotYours, RunOver, NotDecided, ToldOtherwise, NobodyWaits: see there.
            rpc.Unavailable: the orchestrator, or where conversations are, cannot be reached.
        """
        whose = _caller()
        about = {"run": request.run}
        run = await self._run(request.run)
        if run.subject != whose.subject:
            raise RunNotYours(metadata=about)
        if run.HasField("end_time") or run.cancelling:
            raise RunOver(metadata=about)
        if not _decided(run, request):
            raise NotDecided(metadata=about)
        conversation_id = await self._conversations.expecting(request.run, whose.tenant)
        if not conversation_id:
            raise NobodyWaits(metadata=about)
        mail = await self._say(request, conversation_id)
        if (mail.answer, mail.ticket_id) != (_answer(request), request.ticket_id):
            raise ToldOtherwise(metadata=about)
        if self._fleet.send is not None:
            await self._fleet.send(
                MailboxServiceServicer.Deliver,
                mailbox_pb2.DeliverRequest(mail=mail),
                id=f"mail:{mail.mail_id}",
                key=conversation_id,
            )

    async def _run(self, id_: str) -> Run:
        if self._fleet.orchestrator is None:
            raise UnknownRun(metadata={"run": id_})
        request = GetRunRequest(id=id_, outputs=True, binary=True)
        try:
            answer = await attempt(self._fleet.orchestrator.GetRun, request)
        except rpc.Error as failed:
            if failed.code is grpc.StatusCode.NOT_FOUND:
                raise UnknownRun(metadata={"run": id_}) from None
            raise
        if answer.run.workflow != pipeline.NAME:
            raise UnknownRun(metadata={"run": id_})
        return answer.run

    async def _say(
        self, request: supervisor_pb2.TellRequest, conversation_id: str
    ) -> mailbox_pb2.Mail:
        """Adds it to the conversation, where nothing was told of the run; the mail with what was told."""
        answer = _answer(request)
        mail = mailbox_pb2.Mail(
            mail_id=str(uuid.uuid5(uuid.UUID(request.run), "decision")),
            subject="Your request",
            text=answer.text,
            conversation_id=conversation_id,
            answer=answer,
            ticket_id=request.ticket_id,
        )
        message = supervisor_pb2.Message(
            role=supervisor_pb2.ROLE_PERSON,
            text=answer.text,
            answer=answer,
            ticket_id=request.ticket_id,
        )
        message.time.FromDatetime(datetime.now(UTC))
        told = await self._conversations.append_once(
            conversation_id, message, mail_id=mail.mail_id, answer=mail.SerializeToString()
        )
        return mailbox_pb2.Mail.FromString(told)


def _caller() -> Identity:
    call = rpc.current_call()
    return call.identity if call is not None and call.identity is not None else Identity()


def _answer(request: supervisor_pb2.TellRequest) -> support_pb2.Answer:
    return wording.decided(request.answer if request.HasField("answer") else None)


def _decided(run: Run, request: supervisor_pb2.TellRequest) -> bool:
    """Whether people were asked in a run and have decided; of an answer, whether they approved just that."""
    over = (STEP_STATE_SUCCEEDED, STEP_STATE_FAILED)
    asked = [step for step in run.steps if step.approval and step.state in over]
    if not request.HasField("answer"):
        return bool(asked)
    approved = (step.output.binary for step in asked if step.output.type == _ANSWER)
    return any(support_pb2.Answer.FromString(each) == request.answer for each in approved)
