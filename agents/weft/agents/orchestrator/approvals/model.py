"""Approvals as they are stored, and what may be done with them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

import asyncpg

from weft.agents.orchestrator.engine.model import stamp
from weft.v1.identity_pb2 import Identity
from weft.v1.orchestrator_pb2 import Approval
from weft.v1.workflow_pb2 import Decision, TypedMessage, Verdict


def digest_of(serialized: bytes) -> str:
    """What a decision is bound to: SHA-256 of the message that was shown."""
    return hashlib.sha256(serialized).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredApproval:
    """An approval, as its row says."""

    id: str
    number: int
    tenant: str
    run: int
    run_id: str
    workflow: str
    step: str
    title: str
    shown_type: str
    shown: bytes
    digest: str
    edited: bool
    scope: str
    own: bool
    beginner: str
    quorum: int
    editable: bool
    create_time: datetime
    expire_time: datetime | None
    until: datetime
    approvers: Sequence[str]
    identities: Sequence[bytes]
    verdict: str | None
    subject: str
    comment: str
    decide_time: datetime | None
    webhook_url: str

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> Self:
        """An approval of a row of `approvals`."""
        return cls(**{name: row[name] for name in cls.__slots__})

    def message(self) -> Approval:
        """The approval as callers see it, with what it shows serialized."""
        approval = Approval(
            id=self.id,
            run=self.run_id,
            workflow=self.workflow,
            step=self.step,
            title=self.title,
            shown=TypedMessage(type=self.shown_type, binary=self.shown),
            digest=self.digest,
            scope=self.scope,
            quorum=self.quorum,
            editable=self.editable,
            approvers=self.approvers,
        )
        stamp(approval.create_time, self.create_time)
        stamp(approval.expire_time, self.expire_time)
        if self.verdict is not None:
            approval.decision.CopyFrom(self.decision())
        return approval

    def decision(self) -> Decision:
        """What was decided."""
        decision = Decision(
            verdict=Verdict.Value(f"VERDICT_{self.verdict or 'UNSPECIFIED'}"),
            subject=self.subject,
            comment=self.comment,
            edited=self.edited,
        )
        stamp(decision.time, self.decide_time)
        return decision


def may_decide(identity: Identity | None, *, scope: str, own: bool, beginner: str) -> bool:
    """Whether somebody may decide: asked when they do, and again when the run goes on."""
    subject = identity.subject if identity is not None else ""
    if not own and subject == beginner:
        return False
    if not scope:
        return True
    return identity is not None and (identity.all_scopes or scope in identity.scopes)


def stands(approval: StoredApproval, *, scope: str, own: bool, quorum: int) -> bool:
    """Whether what is stored as approved was, by those who may and by enough of them, as the workflow says."""
    who = [Identity.FromString(each) for each in approval.identities]
    return (
        digest_of(approval.shown) == approval.digest
        and len({each.subject for each in who}) >= max(quorum, 1)
        and all(may_decide(each, scope=scope, own=own, beginner=approval.beginner) for each in who)
    )
