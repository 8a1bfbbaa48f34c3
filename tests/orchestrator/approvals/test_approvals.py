"""Approvals: what is decided, by whom, and what comes of it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from tests.orchestrator.conftest import (
    ANN,
    BOB,
    CAT,
    ELSEWHERE,
    Mesh,
    Opening,
    Orchestrator,
    begin,
    ended,
    said,
    say,
    spec,
    states,
    way,
)

from weft import rpc
from weft.agents.orchestrator import fleet
from weft.agents.orchestrator.approvals.queue import Queue
from weft.echo.v1 import echo_pb2
from weft.rpc.testing import wait_until
from weft.v1 import orchestrator_pb2 as pb
from weft.v1.identity_pb2 import Identity
from weft.v1.workflow_pb2 import (
    VERDICT_APPROVED,
    VERDICT_EXPIRED,
    VERDICT_REJECTED,
    TypedMessage,
    WorkflowSpec,
)
from weft.webhooks import SenderSettings

DAN = Identity(subject="user:dan", tenant="acme", scopes=["refunds"])


def gated(**gate: Any) -> WorkflowSpec:
    """Something is approved, and then said; beside it something else is done."""
    whole = {"title": "'May I say ' + input.text + '?'", "show": "input", **gate}
    return spec(
        nodes=[
            {"id": "gate", "approval": whole},
            say("done", "gate.text"),
            say("beside"),
            say("not"),
        ],
        edges=[
            way("gate", "done"),
            way("gate", "not", when="decisions.gate.verdict == 2"),
            way("gate", "beside", otherwise=True),
        ]
        if gate.pop("branches", False)
        else [way("gate", "done"), way("beside", "not")],
        output="done",
    )


async def asked(client: Any, run: str) -> pb.Approval:
    """The approval that a run asks for."""
    found: list[pb.Approval] = []

    async def there() -> bool:
        request = pb.ListApprovalsRequest(run=run, state=pb.APPROVAL_STATE_ANY)
        listed = await client.ListApprovals(request)
        found[:] = listed.approvals
        return bool(found)

    await wait_until(there, timeout=timedelta(seconds=20))
    return found[0]


def decision(
    approval: pb.Approval, verdict: Any = VERDICT_APPROVED, **further: Any
) -> pb.DecideApprovalRequest:
    return pb.DecideApprovalRequest(
        id=approval.id, verdict=verdict, **{"digest": approval.digest, **further}
    )


async def refused(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return rpc.error_from_call(failed.value).reason


async def test_what_was_shown_is_approved_and_nothing_waits_beside_it(
    ann: Any, orch: Orchestrator, mesh: Mesh
) -> None:
    run = await begin(ann, gated(), given=echo_pb2.SayRequest(text="pay"))
    approval = await asked(ann, run.id)
    shown = echo_pb2.SayRequest(text="pay").SerializeToString(deterministic=True)
    assert approval.digest == hashlib.sha256(shown).hexdigest()
    assert approval.title == "May I say pay?"
    assert approval.shown.json.struct_value["text"] == "pay"

    async def waits() -> bool:
        got = (await ann.GetRun(pb.GetRunRequest(id=run.id))).run
        return got.state == pb.RUN_STATE_WAITING and states(got)["not@1"] == "SUCCEEDED"

    await wait_until(waits)
    bob = await orch.client(BOB)
    assert (
        await refused(bob.DecideApproval(decision(approval, digest="0" * 64))) == "APPROVAL_CHANGED"
    )
    decided = (await bob.DecideApproval(decision(approval, comment="yes"))).approval
    assert decided.decision.verdict == VERDICT_APPROVED
    assert said(await ended(ann, run.id)) == "pay"
    # The same again by the same person is no error; anything else is.
    same = (await bob.DecideApproval(decision(approval, comment="again"))).approval
    assert same.decision.comment == "yes"
    assert (
        await refused(bob.DecideApproval(decision(approval, VERDICT_REJECTED)))
        == "APPROVAL_DECIDED"
    )
    dan = await orch.client(DAN)
    assert await refused(dan.DecideApproval(decision(approval))) == "APPROVAL_DECIDED"
    events = [a.event async for a in ann.WatchRun(pb.WatchRunRequest(id=run.id), timeout=20)]
    told = [event.approval.decision.verdict for event in events if event.HasField("approval")]
    assert told == [0, VERDICT_APPROVED]


async def test_who_may_decide(ann: Any, orch: Orchestrator) -> None:
    run = await begin(ann, gated(scope="refunds"))
    approval = await asked(ann, run.id)
    cat, bob, other = [await orch.client(each) for each in (CAT, BOB, ELSEWHERE)]
    nobody = await orch.client(Identity(tenant="acme"))
    assert await refused(ann.DecideApproval(decision(approval))) == "APPROVAL_NOT_YOURS"
    assert await refused(cat.DecideApproval(decision(approval))) == "APPROVAL_NOT_YOURS"
    assert await refused(nobody.DecideApproval(decision(approval))) == "APPROVAL_NOT_YOURS"
    assert await refused(other.DecideApproval(decision(approval))) == "APPROVAL_NOT_FOUND"
    mine = {}
    for name, client in {"ann": ann, "bob": bob, "cat": cat, "other": other}.items():
        listed = await client.ListApprovals(pb.ListApprovalsRequest(mine=True))
        mine[name] = len(listed.approvals)
    assert mine == {"ann": 0, "bob": 1, "cat": 0, "other": 0}
    await bob.DecideApproval(decision(approval))
    await ended(ann, run.id)
    own = await begin(ann, gated(own=True))
    await ann.DecideApproval(decision(await asked(ann, own.id)))
    await ended(ann, own.id)


async def test_scopes_are_asked_again_when_the_run_goes_on(
    opening: Opening, mesh: Mesh, database_url: str
) -> None:
    async with opening() as one:
        ann = await one.client(ANN)
        run = await begin(ann, gated(scope="refunds"))
        approval = await asked(ann, run.id)

        async def waits() -> bool:
            got = (await ann.GetRun(pb.GetRunRequest(id=run.id))).run
            return got.state == pb.RUN_STATE_WAITING

        await wait_until(waits)
    async with await fleet.database(database_url) as database:
        # Somebody who may not, by the back door.
        who = CAT.SerializeToString()
        args = ("acme", approval.id, CAT.subject, who, "APPROVED", approval.digest, "", None, None)
        assert await database.fetchrow("decide_approval", *args)
    async with opening() as other:
        done = await ended(await other.client(ANN), run.id)
        assert done.failure.reason == "APPROVAL_NOT_YOURS"
    assert not mesh.agent.calls["begin"]


async def test_the_first_of_two_that_decide_at_once_decides(ann: Any, orch: Orchestrator) -> None:
    deciders = [await orch.client(each) for each in (BOB, DAN)]
    for _ in range(5):
        run = await begin(ann, gated())
        approval = await asked(ann, run.id)
        verdicts = (VERDICT_APPROVED, VERDICT_REJECTED)
        answers = await asyncio.gather(
            *(
                c.DecideApproval(decision(approval, v))
                for c, v in zip(deciders, verdicts, strict=True)
            ),
            return_exceptions=True,
        )
        won = [a for a in answers if not isinstance(a, BaseException)]
        assert len(won) == 1
        done = await ended(ann, run.id)
        approved = won[0].approval.decision.verdict == VERDICT_APPROVED
        assert done.HasField("output") == approved
        if not approved:
            assert done.failure.reason == "REJECTED"


async def test_it_may_be_changed_before_it_is_approved(ann: Any, orch: Orchestrator) -> None:
    bob, dan = await orch.client(BOB), await orch.client(DAN)
    run = await begin(ann, gated(editable=True, quorum=2))
    approval = await asked(ann, run.id)
    wrong = TypedMessage(type="weft.echo.v1.SayResponse")
    assert await refused(bob.DecideApproval(decision(approval, edited=wrong))) == "INVALID_ARGUMENT"
    changed = json_format.ParseDict({"json": {"text": "less"}}, TypedMessage())
    first = (await bob.DecideApproval(decision(approval, edited=changed))).approval
    assert list(first.approvers) == ["user:bob"]
    assert first.digest != approval.digest
    # Whoever did not get the answer says it again.
    again = (await bob.DecideApproval(decision(approval, edited=changed))).approval
    assert (again.digest, list(again.approvers)) == (first.digest, ["user:bob"])
    # Who is next decides what it is now.
    assert await refused(dan.DecideApproval(decision(approval))) == "APPROVAL_CHANGED"
    second = (await dan.DecideApproval(decision(first))).approval
    assert second.decision.edited
    assert list(second.approvers) == ["user:bob", "user:dan"]
    again = (await bob.DecideApproval(decision(approval, edited=changed))).approval
    assert again.decision == second.decision
    assert said(await ended(ann, run.id)) == "less"
    plain = await begin(ann, gated())
    approval = await asked(ann, plain.id)
    assert (
        await refused(bob.DecideApproval(decision(approval, edited=changed))) == "INVALID_ARGUMENT"
    )


async def test_a_quorum_is_of_different_people_and_one_rejection_ends_it(
    ann: Any, orch: Orchestrator
) -> None:
    bob, dan = await orch.client(BOB), await orch.client(DAN)
    run = await begin(ann, gated(quorum=2))
    approval = await asked(ann, run.id)
    for _ in range(2):
        once = (await bob.DecideApproval(decision(approval))).approval
        assert list(once.approvers) == ["user:bob"]
        assert not once.HasField("decision")
    await dan.DecideApproval(decision(approval))
    assert said(await ended(ann, run.id)) == "begin"
    run = await begin(ann, gated(quorum=2))
    approval = await asked(ann, run.id)
    await bob.DecideApproval(decision(approval))
    await dan.DecideApproval(decision(approval, VERDICT_REJECTED))
    assert (await ended(ann, run.id)).failure.reason == "REJECTED"


async def test_it_expires_without_anybody_looking(ann: Any, orch: Orchestrator) -> None:
    run = await begin(ann, gated(expires="0.3s"))
    approval = await asked(ann, run.id)
    done = await ended(ann, run.id)
    assert done.failure.reason == "EXPIRED"
    bob = await orch.client(BOB)
    assert await refused(bob.DecideApproval(decision(approval))) == "APPROVAL_DECIDED"
    got = (await bob.GetApproval(pb.GetApprovalRequest(id=approval.id))).approval
    assert got.decision.verdict == VERDICT_EXPIRED
    # What a run that is cancelled asked for is over as well.
    run = await begin(ann, gated())
    approval = await asked(ann, run.id)
    await ann.CancelRun(pb.CancelRunRequest(id=run.id))
    assert (await ended(ann, run.id)).state == pb.RUN_STATE_CANCELLED
    got = (await bob.GetApproval(pb.GetApprovalRequest(id=approval.id))).approval
    assert got.decision.verdict == VERDICT_EXPIRED
    listed = await bob.ListApprovals(
        pb.ListApprovalsRequest(state=pb.APPROVAL_STATE_ENDED, page_size=1)
    )
    assert len(listed.approvals) == 1
    assert listed.next_page_token


async def test_they_are_streamed_as_they_are_asked_for_and_end(
    ann: Any, orch: Orchestrator
) -> None:
    first = await begin(ann, gated())
    open_ = await asked(ann, first.id)
    bob = await orch.client(BOB)
    watch = bob.WatchApprovals(pb.WatchApprovalsRequest(mine=True), timeout=20).__aiter__()

    async def next_() -> pb.Approval:
        return (await anext(watch)).approval

    assert (await next_()).id == open_.id
    second = await begin(ann, gated())
    new = await next_()
    assert new.run == second.id
    await bob.DecideApproval(decision(new))
    gone = await next_()
    assert (gone.id, gone.decision.verdict) == (new.id, VERDICT_APPROVED)


class Receiver:
    """Takes webhooks, as an HTTP server of the least kind."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))
        self.got.append((_exact(head), body))
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


def _exact(head: list[str]) -> dict[str, str]:
    return {k.lower(): v for k, v in (line.split(": ", 1) for line in head[1:] if line)}


async def test_webhooks_are_signed(opening: Opening, database_url: str) -> None:
    receiver = Receiver()
    server = await asyncio.start_server(receiver, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    settings = SenderSettings(first_pause=timedelta(seconds=0.1))
    async with (
        server,
        opening(webhooks=settings, webhook_networks=["127.0.0.0/8"]) as orch,
        await fleet.database(database_url) as database,
    ):
        ann, bob = await orch.client(ANN), await orch.client(BOB)
        run = await begin(ann, gated(webhook_url=url))
        approval = await asked(ann, run.id)
        await wait_until(lambda: len(receiver.got) == 1, timeout=timedelta(seconds=10))
        await bob.DecideApproval(decision(approval))
        await wait_until(lambda: len(receiver.got) == 2, timeout=timedelta(seconds=10))
        secret = await Queue(database).secret("acme")
    told = []
    for headers, body in receiver.got:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        digest = base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()
        assert headers["webhook-signature"] == f"v1,{digest}"
        data = json.loads(body)
        assert data["data"]["approval"] == approval.id
        assert data["data"]["digest"] == approval.digest
        told.append(data["type"])
    assert told == ["approval.asked", "approval.approved"]
